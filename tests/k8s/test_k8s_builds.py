"""Every Dockerfile built by buildah in seconds: on a base whose pip and uv install one file.

`make images` builds them for real, and `test_k8s_containers.py` runs what it built.
"""

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from rendered import K8S, ROOT

INDEX = "https://packages.invalid/simple"
IMAGES = ("serve", "triton", "triton-cpu", "training")
CYCLONEDX = Path(sys.prefix) / "helm" / "bin" / "cyclonedx-py"
PROGRAMS = ("cat", "chown", "cp", "env", "mkdir", "rm")  # of the machine's own
STUBS = {
    # Both fail without what they are given.
    "pip": "cat /etc/pip.conf",
    "uv": """
        cat /etc/uv/uv.toml || exit
        [ "$1" = venv ] || exit 0
        for target; do :; done
        at="$target/lib/python3.9/site-packages/installed-1.2.dist-info" # not this machine's Python
        mkdir -p "$target/bin" "$at"
        cp /bin/python "$target/bin/python"
        echo "Name: installed
Version: 1.2" >"$at/METADATA"
    """,
    "python": ":",
    "useradd": ":",
    "apt-get": ":",
}


def run_buildah(*words: str | Path) -> str:
    done = subprocess.run(["buildah", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image with a shell and the stubs."""
    if shutil.which("buildah") is None or os.geteuid() != 0:
        pytest.skip("builds images: with buildah, as root")
    tree = tmp_path_factory.mktemp("base")
    for folder in ("bin", "etc", "tmp", "var/lib/apt/lists"):
        (tree / folder).mkdir(parents=True)
    for name in PROGRAMS:
        copy_program(Path(shutil.which(name) or name), tree / "bin" / name, tree)
    copy_program(Path("/bin/sh").resolve(), tree / "bin" / "sh", tree)
    for name, lines in STUBS.items():
        (tree / "bin" / name).write_text(f"#!/bin/sh\n{lines}\n")
        (tree / "bin" / name).chmod(0o755)
    name = f"localhost/rehue-test-{uuid.uuid4().hex}"
    container = run_buildah("from", "scratch")
    run_buildah("add", "--quiet", container, tree, "/")
    run_buildah("config", "--env", "PATH=/bin", container)
    run_buildah("commit", "--quiet", "--rm", container, name)
    yield name
    run_buildah("rmi", "--force", name)


def copy_program(program: Path, target: Path, tree: Path) -> None:
    """Copy a program and the libraries it is linked to."""
    shutil.copy(program, target)
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for library in (word for word in linked.split() if word.startswith("/")):
        (tree / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, tree / library[1:])


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_listed_and_does_not_keep_the_index_that_its_build_is_given(
    base: str, image: str, tmp_path: Path
) -> None:
    if not CYCLONEDX.exists():
        pytest.skip("cyclonedx-py is installed by `make test` and `make k8s`")
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {INDEX}\n")
    (tmp_path / "uv.toml").write_text(f'index-url = "{INDEX}"\n')
    prefix = f"localhost/{uuid.uuid4().hex}/"
    environment = {
        "BASE": base,
        "PREFIX": prefix,
        "OPTIONS": "--isolation chroot",
        "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"),
        "UV_CONFIG_FILE": str(tmp_path / "uv.toml"),
        "SBOM": str(tmp_path / "sbom"),
        "CYCLONEDX": str(CYCLONEDX),
    }
    built = subprocess.run(
        [K8S / "build-images", image],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    name = built.stdout.split()[-1]
    components = json.loads((tmp_path / "sbom" / f"{image}.json").read_text())["components"]
    assert [(part["name"], part["version"]) for part in components] == [("installed", "1.2")]
    container = run_buildah("from", name)
    try:
        tree = Path(run_buildah("mount", container))
        assert (tree / "opt" / "rehue").is_dir()
        found = subprocess.run(
            ["grep", "-rl", INDEX, tree], capture_output=True, text=True, check=False
        )
        assert found.stdout == ""
        assert not [path for path in tree.rglob("*") if path.name in ("pip.conf", "uv.toml")]
        inspected = run_buildah("inspect", name)
        assert INDEX not in inspected
        assert json.loads(inspected)["Docker"]["config"]["User"] == "1000:1000"
    finally:
        run_buildah("rm", container)
        run_buildah("rmi", "--force", name)
