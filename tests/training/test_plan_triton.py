"""`rehue gpu-check --triton`: what a running Triton answers beside the ONNX file.

With a real Triton on the CPU, and with a scripted one that answers as broken backends do.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from paths import MODELS
from scripted_triton import Answer, answer_from_wrong_graphs, answer_late, load_network, serve

from rehue_client.command import main
from rehue_serve.embedded import EmbeddedTriton
from rehue_training.plan import parity, triton_check
from rehue_training.plan.parity import TOLERANCE
from rehue_training.plan.served_model import load_served_model
from rehue_training.plan.triton_check import (
    BATCHES,
    CALLS,
    WrongAnswers,
    choose_batches,
    compare_triton,
    vary_inputs,
)

PHOTOGRAPHS = parity.load_photographs()


@pytest.fixture(scope="module")
def network() -> Answer:
    return load_network(MODELS / "rehue" / "1" / "model.onnx")


def run_check(url: str, out: Path, *models: str) -> int:
    place = ["--repository", str(MODELS), "--out", str(out)]
    return main(["gpu-check", "--triton", url, *place, *models])


def test_a_triton_that_answers_rightly_passes(
    network: Answer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(network) as triton:
        assert run_check(triton.url, tmp_path / "check.json", "rehue") == 0
    assert triton.batches == [size for size in BATCHES for _ in range(CALLS)]
    assert (
        "rehue through Triton: 48 calls in batches of 1, 5, 17, 32: ab " in capsys.readouterr().out
    )
    found = json.loads((tmp_path / "check.json").read_text())["models"]["rehue"]
    assert (found["calls"], found["batches"]) == (48, [1, 5, 17, 32])
    assert found["ab_mean"] < 0.01


@pytest.mark.parametrize("size", BATCHES)
@pytest.mark.parametrize("late", [1, 2])
def test_answers_to_earlier_calls_are_refused(
    network: Answer, late: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each batch size by itself."""
    monkeypatch.setattr(triton_check, "choose_batches", lambda largest: (size,))
    with (
        serve(answer_late(network, late)) as triton,
        pytest.raises(
            WrongAnswers, match=rf"at a batch of {size}, call {late + 1}, ab is .* to call 1$"
        ),
    ):
        compare_triton(triton.url, load_served_model(MODELS / "rehue"), PHOTOGRAPHS, TOLERANCE)


@pytest.mark.parametrize("instances", [1, 2])
def test_the_fault_of_tensorrts_backend_is_refused(
    network: Answer, instances: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(answer_from_wrong_graphs(network, instances)) as triton:
        assert run_check(triton.url, tmp_path / "check.json", "rehue") == 3
    output = capsys.readouterr().err
    assert "rehue through Triton is refused: at a batch of 1, call " in output
    assert "it is the answer to call " in output
    assert "refused" in json.loads((tmp_path / "check.json").read_text())["models"]["rehue"]


def test_colours_that_are_off_are_refused(network: Answer) -> None:
    with (
        serve(lambda counts: network(counts) * np.float16(1.5)) as triton,
        pytest.raises(WrongAnswers, match=r"call 1, ab is .* \(at most 6 is allowed\)$"),
    ):
        compare_triton(triton.url, load_served_model(MODELS / "rehue"), PHOTOGRAPHS, TOLERANCE)


def test_no_numbers_are_refused(network: Answer) -> None:
    with (
        serve(lambda counts: network(counts) * np.float16(np.nan)) as triton,
        pytest.raises(WrongAnswers, match="call 1, ab is nan"),
    ):
        compare_triton(triton.url, load_served_model(MODELS / "rehue"), PHOTOGRAPHS, TOLERANCE)


def test_photographs_without_colour_compare_nothing() -> None:
    gray = [np.full((256, 256, 3), 128, np.uint8)]
    with pytest.raises(ValueError, match="too similar to tell their outputs apart"):
        compare_triton("127.0.0.1:1", load_served_model(MODELS / "rehue"), gray, TOLERANCE)


@pytest.mark.parametrize("count", [1, 3, 20])
def test_no_two_inputs_are_alike(count: int) -> None:
    prepared = np.random.default_rng(0).integers(0, 256, (count, 1, 24, 24), np.uint8)
    assert len({variant.tobytes() for variant in vary_inputs(prepared)}) == CALLS


def test_batches_are_those_that_the_model_allows() -> None:
    assert [choose_batches(largest) for largest in (1, 8, 32, 64)] == [
        (1,), (1, 5, 8), (1, 5, 17, 32), (1, 5, 17, 32, 64),
    ]  # fmt: skip


def test_a_real_triton_passes(
    triton: EmbeddedTriton, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The CPU's, which takes batches of 8 at most."""
    assert run_check(triton.url, tmp_path / "check.json", "rehue") == 0
    assert "rehue through Triton: 36 calls in batches of 1, 5, 8" in capsys.readouterr().out


def test_no_triton_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_check("127.0.0.1:1", tmp_path / "check.json", "rehue") == 1
    assert "Triton does not answer for rehue" in capsys.readouterr().err
