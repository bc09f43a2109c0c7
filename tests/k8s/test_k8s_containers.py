"""The serve image, built by buildah, run as Kubernetes runs it, from probes to a picture.

`make images` builds it and runs this. The container is made by hand, because a container runtime
needs cgroups that a test machine may not have: the image's tree, mounted read-only, with /tmp and
/dev/shm in memory, namespaces of its own but the network's, user 1000, no capabilities.
"""

import os
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from paths import PHOTOS
from rendered import ROOT, get_main_container, list_pod_templates

from rehue_client import Client
from rehue_serve.ports import claim_free_ports
from rehue_serve.testing.tritons import SleepingTriton

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
RUN = """
set -e
root=$1; shift
mount --make-rprivate /
mount --bind "$root" "$root"
for file in hosts resolv.conf; do mount --bind "/etc/$file" "$root/etc/$file"; done # as the kubelet
mount --rbind /dev "$root/dev"
mount -t tmpfs -o size=512m tmpfs "$root/dev/shm"
mount -t tmpfs -o size=1g,mode=1777 tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount -o remount,bind,ro "$root"
exec chroot "$root" setpriv --reuid 1000 --regid 1000 --clear-groups --no-new-privs \
  --bounding-set=-all --inh-caps=-all "$@"
"""


@pytest.fixture(scope="module")
def root(long: bool) -> Iterator[Path]:
    """The image's tree."""
    if not long or shutil.which("buildah") is None or os.geteuid() != 0:
        pytest.skip("builds and runs an image: make images, with buildah, as root")
    made = _run_buildah("from", f"rehue/serve:{VERSION}")
    try:
        yield Path(_run_buildah("mount", made))
    finally:
        _run_buildah("rm", made)


def _run_buildah(*words: str) -> str:
    done = subprocess.run(["buildah", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def ports(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """The ports of a container that serves, with a Triton beside it."""
    folder = tmp_path_factory.mktemp("container")
    http, grpc, metrics = claim_free_ports(3)
    with SleepingTriton(folder / "triton") as triton, (folder / "log").open("w") as log:
        environment = {
            "PATH": "/opt/rehue/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/tmp",  # as the image sets it
            "REHUE_TRITON_URLS": triton.url,
            "REHUE_HTTP_PORT": str(http),
            "REHUE_GRPC_PORT": str(grpc),
            "REHUE_METRICS_PORT": str(metrics),
            "RAY_agent_register_timeout_ms": "120000",  # not 30 s: this machine may be busy
        }
        container = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork",
             "sh", "-c", RUN, "run", root, "rehue", "serve"],
            env=environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 240
            while not _is_ready(f"http://127.0.0.1:{http}/readyz"):
                written = (folder / "log").read_text()
                assert container.poll() is None, written
                assert time.monotonic() < deadline, written
                time.sleep(0.5)
            yield {"http": http, "grpc": grpc, "pid": container.pid}
        finally:
            # The first process of its namespace, with which all of them end: a change of the user
            # clears what --kill-child sets.
            for first in psutil.Process(container.pid).children():
                first.kill()
            container.wait()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def test_it_names_no_index_of_the_machine_that_built_it(root: Path) -> None:
    folders = (root / "etc", root / "opt", root / "root", root / "home")
    found = [path for folder in folders for path in folder.rglob("*")]
    assert not [path for path in found if path.name in ("pip.conf", "uv.toml", "uv.lock")]
    assert (root / "etc" / "resolv.conf").read_bytes() == b""


def test_probes_are_answered_and_a_photograph_is_colorized(ports: dict[str, int]) -> None:
    pod = get_main_container(list_pod_templates("gpu")["ray-worker"])
    path = pod["readinessProbe"]["httpGet"]["path"]
    assert httpx.get(f"http://127.0.0.1:{ports['http']}{path}").is_success
    photograph = (PHOTOS / "skimage_coffee.jpg").read_bytes()
    for url in (f"http://127.0.0.1:{ports['http']}", f"grpc://127.0.0.1:{ports['grpc']}"):
        with Client(url) as client:
            picture = client.colorize(photograph)
            assert picture.media_type == "image/jpeg"
            assert picture.data != photograph


def test_nothing_in_it_is_root_or_can_write_or_has_a_capability(ports: dict[str, int]) -> None:
    inside = psutil.Process(ports["pid"]).children(recursive=True)[1:]
    assert len(inside) > 5  # Ray's and the Colorizer
    for process in inside:
        fields = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert fields["Uid"].split() == ["1000"] * 4, process
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0, process
        assert fields["NoNewPrivs"] == "1"
        mounts = Path(f"/proc/{process.pid}/mountinfo").read_text().splitlines()
        (whole,) = [line.split() for line in mounts if line.split()[4] == "/"]
        assert "ro" in whole[5].split(",")
