"""What `rehue colorize` prints and writes about a run."""

import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from colorize_runs import COUNT, run_colorize

from rehue_client import command, report
from rehue_serve.testing.scripted import (
    Delay,
    Refusal,
    ScriptedServer,
)


def test_failures_are_written_to_a_file(
    scripted: ScriptedServer, photos: Path, tmp_path: Path
) -> None:
    scripted.always = lambda image: Refusal("INVALID_IMAGE") if image < b"photo 02" else None
    failures = tmp_path / "failures.tsv"
    assert run_colorize(scripted, photos, "-o", tmp_path / "out", "--failures", failures) == 1
    lines = sorted(failures.read_text().splitlines())
    assert [line.split("\t")[0] for line in lines] == [
        str(photos / "00.jpg"),
        str(photos / "01.jpg"),
    ]
    assert lines[0].split("\t")[1] == "as the script says (request r-1)"
    assert run_colorize(scripted, photos, "-o", tmp_path, "--failures", tmp_path / "no" / "f") == 2


def test_json_lines_describe_every_photograph(
    scripted: ScriptedServer, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.always = lambda image: Refusal("INVALID_IMAGE") if image == b"photo 01" else None
    out = tmp_path / "out"
    out.mkdir()
    (out / "00.jpg").write_bytes(b"done")
    assert run_colorize(scripted, photos, "-o", out, "--json", "--resume") == 1
    output = capsys.readouterr()
    records = {
        Path(record["source"]).name: record for record in map(json.loads, output.out.splitlines())
    }
    assert len(records) == COUNT
    assert records["00.jpg"]["status"] == "skipped"
    assert records["01.jpg"] == {
        "source": str(photos / "01.jpg"), "output": str(out / "01.jpg"), "status": "failed",
        "reason": "INVALID_IMAGE", "message": "as the script says (request r-1)",
        "request_id": "r-1",
    }  # fmt: skip
    assert records["02.jpg"] == {
        "source": str(photos / "02.jpg"), "output": str(out / "02.jpg"), "status": "colorized",
        "model": "rehue/1", "request_id": "r-1", "ms": 21.5,
    }  # fmt: skip
    assert f"{COUNT - 2} colorized, 1 already there, 1 failed" in output.err


def test_quiet_prints_failures_only(
    scripted: ScriptedServer, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.always = lambda image: Refusal("INVALID_IMAGE") if image == b"photo 01" else None
    assert run_colorize(scripted, photos, "-o", tmp_path / "out", "--quiet") == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == f"failed: {photos / '01.jpg'}: as the script says (request r-1)\n"


def test_dry_run_contacts_no_server(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "notes.txt").write_text("x")
    arguments = ["colorize", str(photos), "-o", str(tmp_path / "out"), "--dry-run"]
    assert command.main([*arguments, "--server", "grpc://127.0.0.1:1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{photos / '00.jpg'} -> {tmp_path / 'out' / '00.jpg'}"
    assert lines[-2:] == [f"{COUNT} to colorize", "left out: 1 .txt file"]
    assert not (tmp_path / "out").exists()


def test_progress_is_a_line_at_a_time_without_a_terminal(
    scripted: ScriptedServer, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert report.LINE_INTERVAL == 10
    monkeypatch.setattr(report, "LINE_INTERVAL", 0.3)
    scripted.always = lambda image: Delay(0.05)
    assert run_colorize(scripted, photos, "-o", tmp_path / "out", "--concurrency", 2) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert all(f" of {COUNT} done, 0 failed, " in line and line.endswith("left") for line in lines)


def test_terminal_shows_a_line_that_changes(
    scripted: ScriptedServer, photos: Path, tmp_path: Path
) -> None:
    scripted.always = lambda image: Delay(0.05)
    master, slave = pty.openpty()
    command_line = [
        sys.executable, "-m", "rehue_client", "colorize", str(photos), "-o", str(tmp_path / "out"),
        "--server", scripted.grpc_url,
    ]  # fmt: skip
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        command_line, stdout=subprocess.DEVNULL, stderr=slave, env=environment
    )
    os.close(slave)
    shown = bytearray()
    with contextlib.suppress(OSError):  # Linux reports the end of a terminal as an error
        while chunk := os.read(master, 65536):
            shown += chunk
    os.close(master)
    assert process.wait(30) == 0
    states = shown.decode().replace("\n", "").strip("\r").split("\r")
    assert len(states) > 1
    assert all(len(state) < 100 for state in states)  # a longer one would take two lines
    assert states[-1].startswith(f"{COUNT} of {COUNT} done, 0 failed, ")
    assert states[-1].rstrip().endswith("0:00:00 left")


def test_help_documents_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        command.main(["colorize", "--help"])
    output = capsys.readouterr().out
    assert "exit codes:" in output
    assert all(f"\n  {code} " in output for code in (0, 1, 2, 130))
