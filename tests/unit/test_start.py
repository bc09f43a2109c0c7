"""What `rehue serve` imports: Ray late, and codecs in the replicas alone."""

import subprocess
import sys

import pytest


def is_imported(package: str, program: str) -> bool:
    """Whether a new Python has imported the package after the program."""
    check = f"{program}; import sys; sys.exit({package!r} in sys.modules)"
    return subprocess.run([sys.executable, "-c", check], check=False).returncode != 0


def test_server_does_not_import_ray_before_its_environment_is_set() -> None:
    """Ray would keep a token of its own, and its processes would refuse each other."""
    assert not is_imported("ray", "import rehue_serve.command, rehue_serve.server")


@pytest.mark.parametrize("module", ["rehue_serve.app", "rehue_serve.rpc_server"])
def test_codecs_are_not_imported_beside_the_replicas(module: str) -> None:
    """`rehue serve` and Ray's proxies would hold them too: 80 MiB each."""
    for package in ("numba", "cv2", "rehue_serve.pipeline"):
        assert not is_imported(package, f"import {module}")
