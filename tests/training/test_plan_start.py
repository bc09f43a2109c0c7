"""The Triton image's start script, with a real Triton; a stand-in for the builder only."""

import signal
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import psutil
import pytest
from paths import MODELS, PHOTOS
from plan_models import copy_model, infer
from triton_image import Image, build_image, choose_ports, wait_until_serving

from rehue_serve.testing.tritons import SleepingTriton


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return build_image(tmp_path)


def test_it_checks_builds_warms_up_serves_and_compares(image: Image) -> None:
    ports, grpc, http = choose_ports()
    log = image.path / "log"  # longer than a pipe holds
    # Compared on the package's own photographs, as where none are given.
    with log.open("w") as out:
        process = replace(image, out=out).start(
            "start", *ports, "--log-verbose=1", REHUE_PLAN_OPTIONS=""
        )
    try:
        assert image.run("ready", *ports)[0] != 0
        wait_until_serving(process, http)
        while image.run("ready", *ports)[0] != 0:
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        assert image.steps == ["rehue", "tritonserver", "rehue"]
        assert image.run("live", *ports) == (0, "")
        counts = np.random.default_rng(0).integers(0, 256, (2, 1, 256, 256), np.uint8)
        (found,) = infer(f"127.0.0.1:{grpc}", "rehue", counts)
        session = onnxruntime.InferenceSession(MODELS / "rehue" / "1" / "model.onnx")
        (expected,) = session.run(["ab"], {"lightness": counts})
        np.testing.assert_allclose(found.astype(float), expected.astype(float), atol=0.2)
    finally:
        process.send_signal(signal.SIGTERM)  # to the script's own process, as a kubelet does
        process.wait(60)
    output = log.read_text()
    assert process.returncode == 0, output
    order = ["does not exist", "built in", "sample 'one'", "sample 'full'", "Started GRPC",
             "rehue through Triton: 24 calls in batches of 1, 2: ab "]  # fmt: skip
    places = [output.find(line) for line in order]
    assert min(places) >= 0, list(zip(order, places, strict=True))
    assert places == sorted(places)
    assert image.run("ready", *ports)[0] != 0
    assert image.run("live", *ports)[0] != 0


def test_a_triton_that_answers_late_is_never_ready(image: Image) -> None:
    """Its second to last call's answers: as with CUDA graphs and an output copy stream."""
    assert image.run("prepare")[0] == 0
    ports, _, _ = choose_ports()
    code, output = image.run("serve", *ports, LATE="yes")
    assert code == 3, output
    assert "rehue through Triton is refused: at a batch of 1, call 3, ab is" in output
    assert "it is the answer to call 1" in output
    assert not (image.path / "rehue-compared").exists()


def test_a_triton_that_does_not_start_ends_the_container(image: Image) -> None:
    assert image.run("prepare")[0] == 0
    code, output = image.run("serve", "--no-such-option")
    assert (code not in (0, 3), "rehue through Triton" in output) == (True, False), output


def test_a_stop_while_answers_are_compared_stops_triton(image: Image) -> None:
    assert image.run("prepare")[0] == 0
    ports, _, http = choose_ports()
    process = image.start("serve", *ports)
    try:
        wait_until_serving(process, http)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode in (0, 128 + signal.SIGTERM)  # where the comparison was over already
    assert not [child for child in psutil.Process().children() if child.pid == process.pid]
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{http}/v2/health/live", timeout=2)


def test_a_triton_that_computes_no_more_is_not_alive(
    image: Image, sleepers: list[SleepingTriton]
) -> None:
    """Its HTTP still says that it is alive and ready, as with a broken CUDA context."""
    triton = sleepers[0]
    port = f"--http-port={triton.http_port}"
    assert image.run("live", port) == (0, "")
    triton.start_failing()
    try:
        url = f"http://127.0.0.1:{triton.http_port}/v2/health/live"
        assert urllib.request.urlopen(url, timeout=5).status == 200
        assert image.run("live", port)[0] != 0
    finally:
        triton.stop_failing()
    assert image.run("live", port)[0] == 0


def test_only_the_models_asked_for_are_copied_built_and_served(image: Image) -> None:
    source = image.path / "source"
    for name in ("rehue", "seed", "rehue-free"):
        (source / name / "1").mkdir(parents=True)
        (source / name / "1" / "model.onnx").write_text(name)
    (source / "README.md").touch()
    target = image.path / "target"
    target.mkdir()
    places = {"REHUE_MODEL_SOURCE": str(source), "REHUE_MODEL_REPOSITORY": str(target)}
    assert image.run("models", REHUE_MODELS="rehue, seed", **places) == (0, "")
    assert sorted(path.name for path in target.iterdir()) == ["rehue", "seed"]
    assert (target / "seed" / "1" / "model.onnx").read_text() == "seed"
    assert image.run("models", **places) == (0, "")
    assert sorted(path.name for path in target.iterdir()) == ["rehue", "rehue-free", "seed"]
    assert image.run("models", REHUE_MODELS="sed", **places) == (
        2,
        f"start: there is no model sed in {source}\n",
    )
    code, output = image.run("serve", REHUE_MODELS="rehue", **places)
    assert code == 2
    assert output.endswith("/target holds rehue-free, which REHUE_MODELS does not name\n")
    copy_model(image.path / "models", "seed")
    assert image.run("prepare", REHUE_MODELS="rehue")[0] == 0
    built = (image.path / "models").glob("*/1/model.plan")
    assert [path.parts[-3] for path in built] == ["rehue"]


def test_the_base_images_python_path_does_not_reach_rehue(image: Image) -> None:
    """NVIDIA's holds DALI's packages, which come before the environment's own."""
    (image.path / "dali" / "numpy").mkdir(parents=True)
    (image.path / "dali" / "numpy" / "__init__.py").write_text("raise SystemExit('DALI')")
    path = f"{image.path}/dali:"
    assert image.run("prepare", PYTHONPATH=path)[0] == 0
    image.run("serve", "--no-such-option", PYTHONPATH=path)
    assert f"tritonserver {path}" in (image.path / "steps").read_text()


def test_prepared_by_one_container_and_served_by_another(image: Image) -> None:
    assert image.run("prepare")[0] == 0
    assert image.steps == ["rehue"]
    code, output = image.run("serve", "--no-such-option")
    assert "the plan of" in output
    assert "fits" in output
    assert image.steps == ["rehue", "rehue", "tritonserver"]
    assert code != 0


def test_unsuitable_plan_is_refused_after_the_init_container(image: Image) -> None:
    assert image.run("prepare")[0] == 0
    code, output = image.run("serve", DRIVER="600.1")
    assert code == 3
    assert "the driver was 580.82.07, here it is 600.1" in output
    assert "tritonserver" not in image.steps


def test_options_are_those_of_both_containers(image: Image) -> None:
    options = {"REHUE_PLAN_OPTIONS": "--compatibility ampere-plus --photos photographs/*.jpg"}
    (image.path / "photographs").mkdir()
    for name in ("mpl_grace_hopper", "sklearn_china"):
        (image.path / "photographs" / f"{name}.jpg").symlink_to(PHOTOS / f"{name}.jpg")
    assert image.run("prepare", **options)[0] == 0
    assert (
        "photographs/mpl_grace_hopper.jpg photographs/sklearn_china.jpg"
        in (image.path / "steps").read_text()
    )
    code, output = image.run("serve")
    assert (code, "level was ampere-plus, here it is none" in output) == (3, True)
    code, output = image.run("serve", "--no-such-option", **options)
    assert "fits" in output
    assert image.steps[-1] == "tritonserver"


def test_a_build_that_fails_serves_nothing(image: Image) -> None:
    code, output = image.run("start", BROKEN="yes")
    assert code == 1
    assert "no plan was built: TensorRT could not build the plan" in output
    assert "tritonserver" not in image.steps


def test_a_stop_ends_a_build_at_once(image: Image) -> None:
    """The shell is a container's first process: nobody else ends what it started."""
    process = image.start("start", SLOW="yes")
    assert process.stdout is not None
    assert any("building the plan" in line for line in process.stdout)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    psutil.wait_procs(children, timeout=20)
    assert not any(child.is_running() for child in children)
    assert image.steps == ["rehue"]


def test_a_cache_outlives_the_container(image: Image, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    assert image.run("prepare", REHUE_PLAN_CACHE=cache)[0] == 0
    for left in (tmp_path / "models" / "rehue" / "1").glob("model.plan*"):
        left.unlink()
    code, output = image.run("prepare", REHUE_PLAN_CACHE=cache)
    assert code == 0
    assert "taken from the cache" in output


def test_wrong_argument_is_reported(image: Image) -> None:
    code, output = image.run("serv")
    assert (code, output) == (
        2,
        "start: 'serv' is none of start, models, prepare, serve, ready and live\n",
    )
