"""The base distribution alone: what it brings, what it leaves out, and that it works."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Server

ROOT = Path(__file__).parents[2]
PHOTO = Path(__file__).parents[1] / "photos" / "skimage_coffee.jpg"
LEFT_OUT = [".*", "*.egg-info", "build", "demo", "runs", "results", "model_repository", "tests"]
HEAVY = ["ray", "tensorflow", "tritonclient", "numpy", "PIL", "cv2", "pydantic"]

PROBE = f"""
import importlib.util
found = [name for name in {HEAVY!r} if importlib.util.find_spec(name)]
assert not found, found
import rehue_client
print(rehue_client.__file__)
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment that holds nothing but the client."""
    here = tmp_path_factory.mktemp("alone")
    uv = [str(Path(sys.executable).with_name("uv"))]
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, here / "venv"], check=True)
    pip = [*uv, "pip", "install", "--quiet", "--python", here / "venv" / "bin" / "python"]
    subprocess.run(
        [*pip, "--require-hashes", "-r", ROOT / "requirements" / "client.lock"], check=True
    )
    # A copy, since building leaves a folder where it builds.
    source = shutil.copytree(ROOT, here / "rehue", ignore=shutil.ignore_patterns(*LEFT_OUT))
    subprocess.run([*pip, "--no-deps", source], check=True)
    return here / "venv" / "bin"


def run(*command: object, cwd: Path, code: int = 0) -> str:
    # Nothing of this environment leaks in: no PYTHONPATH, no settings.
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd, env={}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == code, done.stdout
    return done.stdout


def test_neither_ray_nor_tensorflow_nor_triton_comes_with_it(alone: Path, tmp_path: Path) -> None:
    assert str(alone.parent) in run(alone / "python", "-c", PROBE, cwd=tmp_path)


def test_serving_says_what_it_needs(alone: Path, tmp_path: Path) -> None:
    said = run(alone / "rehue", "serve", cwd=tmp_path, code=2)
    assert "pip install 'rehue[serve]'" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_it_colorizes(alone: Path, server: Server, tmp_path: Path, protocol: str) -> None:
    url = server.http_url if protocol == "http" else server.grpc_url
    said = run(
        alone / "rehue", "colorize", PHOTO, "-o", tmp_path / "out.png",
        "--format", "png", "--server", url, cwd=tmp_path,
    )  # fmt: skip
    assert "1 colorized in" in said
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
