"""Two Ray nodes, the application with a replica on each, and the loss of one under load."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from load import Load
from paths import PHOTOS
from ray_node import kill_node

from rehue_client.retries import Retries
from rehue_serve.local_ray import build_ray_environment
from rehue_serve.ports import claim_free_ports
from rehue_serve.settings import Settings
from rehue_serve.testing.tritons import SleepingTriton

RAY = str(Path(sys.executable).parent / "ray")

# On one machine only the head has room for HAProxy's ports.
DEPLOY = """
import sys
import ray
from ray import serve
from ray.serve.config import HTTPOptions
ray.init(address=sys.argv[1], log_to_driver=False)
from rehue_serve import app, settings
chosen = settings.load_settings()
serve.start(
    proxy_location="HeadOnly",
    http_options=HTTPOptions(host=chosen.host, port=chosen.http_port),
    grpc_options=app.build_grpc_options(chosen),
)
serve.run(app.build_application(chosen), name=app.NAME, route_prefix="/")
"""


@pytest.fixture
def nodes(tmp_path: Path, long: bool) -> Iterator[tuple[Settings, psutil.Process]]:
    """The application's settings, and the raylet of the node that may die."""
    if not long:
        pytest.skip("starts two Ray nodes: make test-faults")
    # Unix sockets in it: the path has to be short.
    directory = Path(tempfile.mkdtemp(prefix="rehue-"))
    gcs, http, rpc, first, second = claim_free_ports(5)
    with SleepingTriton(tmp_path / "triton") as triton, contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        settings = Settings(
            http_port=http, grpc_port=rpc, replicas=2, triton_urls=(triton.url,), grace=5
        )
        environment = os.environ | build_ray_environment(settings, directory)
        environment |= {
            "REHUE_HTTP_PORT": str(http),
            "REHUE_GRPC_PORT": str(rpc),
            "REHUE_TRITON_URLS": triton.url,
            "REHUE_REPLICAS": "2",
        }
        # A replica takes one CPU of Ray's count: one a node.
        common = ["--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats"]
        address = f"127.0.0.1:{gcs}"

        def start_node(*arguments: str) -> psutil.Process:
            """A node in the foreground, so that it can be killed with all it started."""
            command = [RAY, "start", "--block", "--node-ip-address=127.0.0.1", *arguments, *common]
            process = subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            node = psutil.Process(process.pid)
            stack.callback(process.wait)
            stack.callback(kill_node, node)
            return node

        start_node(
            "--head",
            f"--port={gcs}",
            "--include-dashboard=false",
            f"--metrics-export-port={first}",
            f"--temp-dir={directory}/ray",
        )
        time.sleep(8)
        worker = start_node(f"--address={address}", f"--metrics-export-port={second}")
        time.sleep(6)
        deployed = subprocess.run(
            [sys.executable, "-c", DEPLOY, address],
            env=environment,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
        assert deployed.returncode == 0, deployed.stderr[-3000:]
        yield settings, worker


def count_replicas(node: psutil.Process) -> int:
    found = node.children(recursive=True)
    return sum("ray::ServeReplica" in " ".join(item.cmdline()) for item in found)


def test_loss_of_a_node_loses_no_photograph(nodes: tuple[Settings, psutil.Process]) -> None:
    settings, worker = nodes
    http = f"http://127.0.0.1:{settings.http_port}"
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{http}/readyz").is_success:
                break
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert count_replicas(worker) == 1
    photo = (PHOTOS / "skimage_coffee.jpg").read_bytes()
    urls = [http, f"grpc://127.0.0.1:{settings.grpc_port}"]
    with Load(urls, photo, rate=15, retries=Retries()) as load:
        time.sleep(2)
        kill_node(worker)
        time.sleep(30)
    print(f"\nnode lost: {load.counts}")
    assert load.counts == {"ok": len(load.outcomes)}, set(map(str, load.errors))
