"""`rehue colorize` from standard input and to standard output."""

from pathlib import Path

import pytest
from colorize_runs import COFFEE, list_outputs, run_colorize, start_colorize

from rehue_serve.testing.scripted import (
    ScriptedServer,
)


def test_standard_input_to_standard_output(scripted: ScriptedServer) -> None:
    process = start_colorize(scripted, "-", "-o", "-")
    out, err = process.communicate(COFFEE.read_bytes(), timeout=30)
    assert (process.returncode, out) == (0, COFFEE.read_bytes())
    assert b"1 colorized in" in err


def test_standard_input_to_a_file(scripted: ScriptedServer, tmp_path: Path) -> None:
    process = start_colorize(scripted, "-", "-o", tmp_path / "x.png")
    process.communicate(COFFEE.read_bytes(), timeout=30)
    assert (process.returncode, list_outputs(tmp_path)) == (0, ["x.png"])
    assert scripted.requests[0].options["format"] == "png"


def test_file_to_standard_output(scripted: ScriptedServer) -> None:
    process = start_colorize(scripted, COFFEE, "-o", "-", "--format", "webp")
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, COFFEE.read_bytes())
    assert scripted.requests[0].options["format"] == "webp"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["-", "-o", "folder"], "needs a file name"), ([COFFEE, COFFEE, "-o", "-"], "single"),
     ([COFFEE, "-o", "-", "--json"], "both write")],
    ids=["folder", "several", "json"],
)  # fmt: skip
def test_unusable_standard_streams_are_refused(
    scripted: ScriptedServer, arguments: list[object], message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run_colorize(scripted, *arguments) == 2
    assert message in capsys.readouterr().err
