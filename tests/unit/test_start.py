"""What `rehue serve` imports: Ray late, and codecs in the replicas alone."""

import subprocess
import sys

import pytest


def read_imported(program: str) -> list[str]:
    """Names of all modules that a new Python has imported after the program."""
    code = f"{program}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_server_does_not_import_ray_before_its_environment_is_set() -> None:
    """Ray would keep a token of its own, and its processes would refuse each other."""
    assert "ray" not in read_imported("import rehue_serve.command, rehue_serve.server")


@pytest.mark.parametrize("module", ["rehue_serve.app", "rehue_serve.rpc_server"])
def test_codecs_are_not_imported_beside_the_replicas(module: str) -> None:
    """`rehue serve` and Ray's proxies would hold them too: 80 MiB each."""
    imported = read_imported(f"import {module}")
    assert module in imported
    for package in ("numba", "cv2", "rehue_serve.pipeline"):
        assert package not in imported
