"""Builders as processes: two at once, killed, and on a full disk; `test_plan` has the rest."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from plan_models import FAST_OPTIONS, check_plan, copy_model, ensure_plan
from standin import H100, create_standin

from rehue_training.plan.identity import PlanRefused


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return copy_model(tmp_path / "repository")


# A builder process, which prints its progress; its build waits for a line on stdin.
BUILDER = """
import sys
from dataclasses import replace
from pathlib import Path
from standin import H100, create_standin
from plan_models import FAST_OPTIONS, ensure_plan
from rehue_training.plan import plans

def until_told(onnx):
    print("builds", flush=True)
    sys.stdin.readline()
    return onnx

def tell(text, *rest):
    if text.startswith("waiting"):
        print("waits", flush=True)

plans.log.info = tell
engine = create_standin(replace(H100, driver=sys.argv[2]), change=until_told)
print("begins", flush=True)
outcome = ensure_plan(Path(sys.argv[1]), engine, FAST_OPTIONS)
print("built" if outcome.built else "found", flush=True)
"""


@contextmanager
def start_builder(model: Path, driver: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(model), driver],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
            process.wait(60)
        finally:
            process.kill()


def wait_for_line(process: "subprocess.Popen[str]", word: str) -> None:
    assert process.stdout is not None
    assert any(line.strip() == word for line in process.stdout)


def let_continue(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_of_two_builders_one_builds_and_the_other_finds(model: Path) -> None:
    with start_builder(model, H100.driver) as first:
        wait_for_line(first, "builds")
        with start_builder(model, H100.driver) as second:
            wait_for_line(second, "waits")
            let_continue(first)
            wait_for_line(first, "built")
            assert second.communicate(timeout=120)[0].split() == ["found"]
    assert (first.returncode, second.returncode) == (0, 0)


def test_two_builders_for_unlike_gpus_leave_a_complete_plan(model: Path) -> None:
    with start_builder(model, "1.0") as first, start_builder(model, "2.0") as second:
        for process in (first, second):
            let_continue(process)
        for process in (first, second):
            output = process.communicate(timeout=120)[0].split()
            assert [word for word in output if word != "waits"] == ["begins", "builds", "built"]
    fits = [
        get_refusal(
            partial(check_plan, model, create_standin(replace(H100, driver=driver)), FAST_OPTIONS)
        )
        for driver in ("1.0", "2.0")
    ]
    assert sorted(map(bool, fits)) == [False, True]
    assert "the driver was" in str(fits)


def get_refusal(work: Callable[[], object]) -> str:
    try:
        work()
    except PlanRefused as error:
        return str(error)
    return ""


def test_a_killed_builder_leaves_the_old_plan_and_no_lock(model: Path) -> None:
    good = ensure_plan(model, create_standin(), FAST_OPTIONS)
    with start_builder(model, "2.0") as process:
        wait_for_line(process, "builds")
        process.send_signal(signal.SIGKILL)
    assert check_plan(model, create_standin(), FAST_OPTIONS).record == good.record
    began = time.monotonic()
    assert ensure_plan(model, create_standin(replace(H100, driver="2.0")), FAST_OPTIONS).built
    assert time.monotonic() - began < 60


def test_a_full_disk_leaves_the_old_plan(model: Path) -> None:
    """A limit on the size of files stands for it: the write fails at the same place."""
    script = (
        "import sys, resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20));"
        "from pathlib import Path; from dataclasses import replace;"
        "from standin import H100, create_standin;"
        "from plan_models import FAST_OPTIONS, ensure_plan;"
        "ensure_plan(Path(sys.argv[1]), create_standin(replace(H100, driver='2.0')), FAST_OPTIONS)"
    )
    good = ensure_plan(model, create_standin(), FAST_OPTIONS)
    done = subprocess.run(
        [sys.executable, "-c", script, str(model)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert "File too large" in done.stderr
    assert check_plan(model, create_standin(), FAST_OPTIONS).record == good.record
    assert not list((model / "1").glob("*.new"))
