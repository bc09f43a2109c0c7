"""`rehue plan` and `rehue gpu-check` as they are typed, and what the check measures."""

import argparse
import ctypes
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import onnx
import pytest
from plan_models import FAST_OPTIONS, copy_model, load_face, scale_output
from standin import create_standin

from rehue_training.plan import command as plan_command
from rehue_training.plan import gpu_check
from rehue_training.plan.gpu_check import Effort
from rehue_training.plan.gpu_runners import TensorRTRunner
from rehue_training.plan.served_model import load_served_model
from rehue_training.plan.tensorrt import TensorRT

REHUE = Path(sys.executable).parent / "rehue"


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def run_rehue(*words: str, at: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([REHUE, *words], cwd=at, capture_output=True, text=True)


@pytest.mark.skipif(has_driver(), reason="for machines without a GPU")
def test_without_a_gpu_each_command_says_what_it_needs(tmp_path: Path) -> None:
    copy_model(tmp_path / "model_repository")
    plan, check = (run_rehue(word, at=tmp_path) for word in ("plan", "gpu-check"))
    assert (plan.returncode, check.returncode) == (4, 4)
    assert plan.stderr == (
        "rehue: there is no NVIDIA driver here (libcuda.so.1 is missing). "
        "Plans are built on the GPU node that serves them.\n"
    )
    assert "gpu-check needs an NVIDIA GPU with its driver, and TensorRT's" in check.stderr
    assert not (tmp_path / "results").exists()


def test_missing_model_is_reported(tmp_path: Path) -> None:
    copy_model(tmp_path / "model_repository")
    done = run_rehue("plan", "nothing", at=tmp_path)
    assert done.returncode == 1
    assert "no nothing with configs/gpu.pbtxt in model_repository" in done.stderr


def test_building_plans_needs_no_tensorflow() -> None:
    code = (
        "import sys; from rehue_training.plan import command, gpu_check, plans;"
        "sys.exit(bool({'tensorflow', 'keras', 'torch', 'ray', 'tensorrt'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


QUICK = Effort(seconds=0, side=64, copied=1 << 20, runs=3, together=2)


def test_the_check_measures_every_batch_beside_the_ceiling(tmp_path: Path) -> None:
    model = copy_model(tmp_path)
    engine = create_standin()
    options = replace(FAST_OPTIONS, level=2)
    *_, result = gpu_check.check_models(
        [load_served_model(model)], options, runner=TensorRTRunner(engine), effort=QUICK
    )
    assert json.loads(json.dumps(result)) == result
    best, found = result["ceiling"], result["models"]["rehue"]
    assert best["operations"] > 0
    assert best["bytes"] > 0
    assert [row["batch"] for row in found["batches"]] == [1, 2]
    for row in found["batches"]:
        assert row["latency_ms"] <= row["latency_p99_ms"]
        time = row["batch"] / row["images_per_second"]
        assert row["operations_per_second"] == pytest.approx(
            row["batch"] * found["cost"]["operations"] / time
        )
        bound = max(
            row["batch"] * found["cost"]["operations"] / best["operations"],
            (found["cost"]["weights"] + row["batch"] * found["cost"]["traffic"]) / best["bytes"],
        )
        assert row["of_ceiling"] == pytest.approx(bound / time)
    assert engine.cuda.in_use == 0  # type: ignore[attr-defined]
    # The product that measures the ceiling, and the model.
    assert [config.builder_optimization_level for _, config in engine.module.builds] == [2, 2]


def run_gpu_check(
    repository: Path, engine: TensorRT, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, dict[str, Any]]:
    """The exit code of `rehue gpu-check` on an engine, and the file that it leaves."""
    monkeypatch.setattr(gpu_check, "Effort", lambda seconds: replace(QUICK, seconds=seconds))
    parser = argparse.ArgumentParser()
    plan_command.add_commands(parser.add_subparsers())
    photo = repository / "face.png"
    cv2.imwrite(str(photo), load_face()[..., ::-1])
    words = ["--seconds", "0", "--photos", str(photo)]
    places = ["--repository", str(repository), "--out", str(repository / "check.json")]
    arguments = parser.parse_args(["gpu-check", *words, *places])
    code = plan_command.check_gpu(arguments, lambda: TensorRTRunner(engine))
    return code, json.loads((repository / "check.json").read_text())


@pytest.mark.parametrize(("reason", "code"), [("refused", 3), ("failed", 1)])
def test_a_model_that_is_not_measured_leaves_the_others(
    reason: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def change(plan: bytes) -> bytes | None:
        if onnx.load_model_from_string(plan).graph.name != "rehue":
            return plan
        return scale_output(plan, 1.5) if reason == "refused" else None

    for name in ("rehue", "seed"):
        copy_model(tmp_path, name)
    ended, result = run_gpu_check(tmp_path, create_standin(change=change), monkeypatch)
    assert ended == code
    bad, good = result["models"]["rehue"], result["models"]["seed"]
    assert list(bad) == [reason]
    assert [row["batch"] for row in good["batches"]] == [1, 2]
    output = capsys.readouterr().out
    assert "NVIDIA H100 80GB HBM3, driver 580.82.07; TensorRT 11.1.0.106; fp16 as of " in output
    assert f"\nrehue: {reason}: {bad[reason]}\n" in output
    assert output.count("\n| 1 |") == 1


def test_a_check_that_is_ended_leaves_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rehue", "seed"):
        copy_model(tmp_path, name)
    built = []

    def change(plan: bytes) -> bytes:
        built.append(plan)
        if len(built) == 3:  # the ceiling's product, rehue, seed
            raise KeyboardInterrupt
        return plan

    with pytest.raises(KeyboardInterrupt):
        run_gpu_check(tmp_path, create_standin(change=change), monkeypatch)
    result = json.loads((tmp_path / "check.json").read_text())
    assert list(result["models"]) == ["rehue"]
    assert [row["batch"] for row in result["models"]["rehue"]["batches"]] == [1, 2]
    assert result["ceiling"]["operations"] > 0


def test_batches_double_up_to_the_largest() -> None:
    assert list(gpu_check.list_batches(32)) == [1, 2, 4, 8, 16, 32]
    assert list(gpu_check.list_batches(12)) == [1, 2, 4, 8, 12]
    assert list(gpu_check.list_batches(1)) == [1]
