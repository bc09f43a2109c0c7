"""The client's own distribution: its dependencies, and that it works."""

import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from rehue_serve.testing.servers import Server

ROOT = Path(__file__).parents[2]
PHOTO = Path(__file__).parents[1] / "photos" / "skimage_coffee.jpg"
LEFT_OUT = [".*", "*.egg-info", "build", "demo", "runs", "results", "model_repository", "tests"]
HEAVY = ["ray", "tensorflow", "tritonclient", "numpy", "PIL", "cv2", "pydantic", "grpc", "rich"]
INSTALL_GRPC = "pip install grpcio, or use http:// or https://"
LARGEST = 20e6  # bytes of the client and all that it needs

PROBE = f"""
import importlib.util
found = [name for name in {HEAVY!r} if importlib.util.find_spec(name)]
assert not found, found
import rehue_client
print(rehue_client.__file__)
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the programs of a fresh environment with the client alone."""
    folder = tmp_path_factory.mktemp("alone")
    uv = [str(Path(sys.executable).with_name("uv"))]
    subprocess.run(
        [*uv, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True
    )
    pip: list[str | Path] = [
        *uv,
        "pip",
        "install",
        "--quiet",
        "--python",
        folder / "venv" / "bin" / "python",
    ]
    subprocess.run(
        [*pip, "--require-hashes", "-r", ROOT / "requirements" / "client.lock"],
        check=True,
    )
    # A copy, because building writes into the source folder.
    source = shutil.copytree(
        ROOT / "clients", folder / "clients", ignore=shutil.ignore_patterns(*LEFT_OUT)
    )
    subprocess.run([*pip, "--no-deps", source], check=True)
    return folder / "venv" / "bin"


def run_command(*command: object, cwd: Path, code: int = 0) -> str:
    # An empty environment: no PYTHONPATH, no settings.
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd, env={}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == code, done.stdout
    return done.stdout


def install(alone: Path, distribution: Path, folder: Path) -> str:
    """Install a distribution into `folder`, without what it needs; return code to import it."""
    # A copy, because building writes into the source folder.
    source = shutil.copytree(
        distribution, folder / "source", ignore=shutil.ignore_patterns(*LEFT_OUT)
    )
    target = folder / "installed"
    uv = Path(sys.executable).with_name("uv")
    where: list[str | Path] = ["--python", alone / "python", "--target", target]
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", *where, source], check=True)
    return f"import sys; sys.path.insert(0, {str(target)!r}); import rehue_client.command as c;"


def test_the_clients_own_distribution_has_nothing_else(alone: Path, tmp_path: Path) -> None:
    code = f"{install(alone, ROOT / 'clients', tmp_path)} c.main(['--version'])"
    installed = list((tmp_path / "installed").iterdir())
    names = {path.name.partition("-")[0] for path in installed}
    assert names - {"bin", ".lock"} == {"rehue_client"}
    assert sum(path.stat().st_size for path in (tmp_path / "installed").rglob("*")) < 1e6
    output = run_command(alone / "python", "-c", code, cwd=tmp_path, code=0)
    assert output.startswith("rehue ")


def test_both_distributions_need_the_same() -> None:
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    client = tomllib.loads((ROOT / "clients" / "pyproject.toml").read_text())["project"]
    for name in ("version", "requires-python", "license"):
        assert client[name] == whole[name], name
    with_grpc = client["dependencies"] + client["optional-dependencies"]["grpc"]
    assert sorted(with_grpc) == sorted(whole["dependencies"])


def test_heavy_packages_are_not_installed(alone: Path, tmp_path: Path) -> None:
    assert str(alone.parent) in run_command(alone / "python", "-c", PROBE, cwd=tmp_path)
    (packages,) = alone.parent.glob("lib/*/site-packages")
    size = sum(path.stat().st_size for path in packages.rglob("*") if path.suffix != ".pyc")
    print(f"the client and what it needs: {size / 1e6:.1f} MB")
    assert 1e6 < size < LARGEST


def test_serve_names_its_extra(alone: Path, tmp_path: Path) -> None:
    code = f"{install(alone, ROOT, tmp_path)} sys.exit(c.main(['serve']))"
    output = run_command(alone / "python", "-c", code, cwd=tmp_path, code=2)
    assert "pip install '.[serve]'" in output
    assert "Traceback" not in output


def colorize_one(alone: Path, tmp_path: Path, *options: str, code: int = 0) -> str:
    return run_command(
        alone / "rehue", "colorize", PHOTO, "-o", tmp_path / "out.png", *options,
        cwd=tmp_path, code=code,
    )  # fmt: skip


def test_it_colorizes_over_http(alone: Path, server: Server, tmp_path: Path) -> None:
    assert "1 colorized in" in colorize_one(alone, tmp_path, "--server", server.http_url)
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_grpc_is_an_extra(alone: Path, server: Server, tmp_path: Path) -> None:
    output = colorize_one(alone, tmp_path, "--server", server.grpc_url, code=2)
    assert output == f"rehue: {server.grpc_url!r} needs gRPC: {INSTALL_GRPC}\n"
    help = " ".join(run_command(alone / "rehue", "colorize", "--help", cwd=tmp_path).split())
    assert "REHUE_SERVER, or http://127.0.0.1:8000" in help
    grpcio = f"grpcio=={version('grpcio')}"
    uv = Path(sys.executable).with_name("uv")
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--no-deps", "--python", alone / "python", grpcio],
        check=True,
    )
    assert "1 colorized in" in colorize_one(alone, tmp_path, "--server", server.grpc_url)
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
