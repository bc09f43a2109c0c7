"""A plan's identity: what is refused, with what sentence, and what survives a failure."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from plan_records import IDENTITY, create_record

from rehue_training.plan import identity
from rehue_training.plan.identity import PlanRefused


def test_a_plan_that_was_put_is_found(tmp_path: Path) -> None:
    identity.store_plan(tmp_path, b"plan", create_record())
    assert identity.find_record(tmp_path, IDENTITY) == create_record()
    assert (tmp_path / "model.plan").read_bytes() == b"plan"
    (kept,) = json.loads((tmp_path / "model.plan.json").read_text())["plans"]
    assert kept["identity"]["gpu"] == "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize(
    ("part", "value", "sentence"),
    [
        ("onnx", "b" * 64, f"the ONNX file's SHA-256 was {'a' * 64}, here it is {'b' * 64}"),
        ("precision", "fp32", "the precision was fp16, here it is fp32"),
        (
            "profiles",
            "x 1/8/8",
            f"the optimisation profiles was {IDENTITY.profiles}, here it is x 1",
        ),
        ("tensorrt", "10.16.1.11", "the TensorRT version was 11.1.0.106, here it is 10.16.1.11"),
        ("gpu", "NVIDIA A10", "the GPU was NVIDIA H100 80GB HBM3, here it is NVIDIA A10"),
        ("compute_capability", "8.6", "the compute capability was 9.0, here it is 8.6"),
        ("driver", "590.1", "the driver was 580.82.07, here it is 590.1"),
        ("compatibility", "ampere-plus", "level was none, here it is ampere-plus"),
        ("level", "0", "the builder's optimisation level was TensorRT's own, here it is 0"),
    ],
)
def test_each_part_that_differs_is_named(
    tmp_path: Path, part: str, value: str, sentence: str
) -> None:
    identity.store_plan(tmp_path, b"plan", create_record())
    with pytest.raises(PlanRefused) as caught:
        identity.find_record(tmp_path, replace(IDENTITY, **{part: value}))
    assert sentence in str(caught.value)
    assert str(caught.value).count("here it is") == 1


def test_all_that_differs_is_named_at_once(tmp_path: Path) -> None:
    identity.store_plan(tmp_path, b"plan", create_record())
    with pytest.raises(PlanRefused, match=r"TensorRT version .*; the driver"):
        identity.find_record(tmp_path, replace(IDENTITY, tensorrt="12", driver="600"))


@pytest.mark.parametrize(
    ("level", "gpu", "capability", "fits"),
    [
        ("none", "NVIDIA H100 PCIe", "9.0", False),
        ("same-compute-capability", "NVIDIA H100 PCIe", "9.0", True),
        ("same-compute-capability", "NVIDIA A10", "8.6", False),
        ("ampere-plus", "NVIDIA A10", "8.6", True),
        ("ampere-plus", "Tesla T4", "7.5", False),
    ],
)
def test_compatibility_allows_other_gpus(level: str, gpu: str, capability: str, fits: bool) -> None:
    built = replace(IDENTITY, compatibility=level)
    here = replace(built, gpu=gpu, compute_capability=capability)
    assert (built.describe_differences(here) == []) == fits
    assert built.key == here.key or not fits
    assert built.key != replace(here, driver="600").key


@pytest.mark.parametrize("part", list(asdict(IDENTITY)))
def test_timings_are_shared_by_builds_of_one_gpu_and_tensorrt(part: str) -> None:
    timed = {"tensorrt", "gpu", "compute_capability", "driver", "compatibility", "level"}
    other = replace(IDENTITY, **{part: "another"})
    assert (other.timing_key == IDENTITY.timing_key) == (part not in timed)


@pytest.mark.parametrize("broken", ["missing", "cut", "exchanged", "unreadable", "foreign"])
def test_a_plan_without_its_identity_is_refused(tmp_path: Path, broken: str) -> None:
    identity.store_plan(tmp_path, b"plan" * 1000, create_record(b"plan" * 1000))
    plan, records = tmp_path / "model.plan", tmp_path / "model.plan.json"
    {  # type: ignore[no-untyped-call]
        "missing": records.unlink,
        "cut": lambda: os.truncate(plan, 17),
        "exchanged": lambda: plan.write_bytes(b"another"),
        "unreadable": lambda: records.write_text("{"),
        "foreign": lambda: records.write_text('{"plans": [{"identity": 3}]}'),
    }[broken]()
    with pytest.raises(PlanRefused, match="no identity"):
        identity.find_record(tmp_path, IDENTITY)


def test_an_identity_with_a_level_that_is_not_known_fits_nothing(tmp_path: Path) -> None:
    identity.store_plan(
        tmp_path, b"plan", create_record(identity=replace(IDENTITY, compatibility="of tomorrow"))
    )
    with pytest.raises(PlanRefused, match="level was of tomorrow, here it is none"):
        identity.find_record(tmp_path, IDENTITY)


def test_no_plan_is_reported(tmp_path: Path) -> None:
    with pytest.raises(PlanRefused, match="does not exist"):
        identity.find_record(tmp_path, IDENTITY)


@pytest.mark.parametrize("old", [b"old", b"new" * (1 << 20)], ids=["another", "the same"])
def test_a_full_disk_leaves_the_old_plan(tmp_path: Path, old: bytes) -> None:
    """Whether the new plan's bytes are others or happen to be the old one's."""
    identity.store_plan(tmp_path, old, create_record(old))
    new = b"new" * (1 << 20)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            identity.store_plan(tmp_path, new, create_record(new, replace(IDENTITY, driver="600")))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert identity.find_record(tmp_path, IDENTITY) == create_record(old)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.plan", "model.plan.json"]


# Stores plan after plan, so that a kill can come at any step.
PUTTING = """
import sys
from pathlib import Path
from plan_records import IDENTITY, create_record
from rehue_training.plan import identity
number = 0
print("ready", flush=True)
while True:
    number += 1
    plan = str(number).encode() * 100_000
    identity.store_plan(Path(sys.argv[1]), plan, create_record(plan))
"""


def test_a_kill_at_any_moment_leaves_a_complete_plan(tmp_path: Path) -> None:
    identity.store_plan(tmp_path, b"old", create_record(b"old"))
    for kill in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", PUTTING, str(tmp_path)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.01 + kill * 0.0037)
            process.send_signal(signal.SIGKILL)
        plan = (tmp_path / "model.plan").read_bytes()
        assert identity.find_record(tmp_path, IDENTITY) == create_record(plan)
    assert plan != b"old"
