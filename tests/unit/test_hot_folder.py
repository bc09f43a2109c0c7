"""`rehue colorize --watch`, as a process, on a scripted server."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from colorize_runs import COFFEE, refuse_bad
from waiting import wait_for

from rehue_client import command
from rehue_serve.testing.scripted import ScriptedServer, serve


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    with serve(ScriptedServer(always=refuse_bad)) as server:
        yield server


@pytest.fixture
def watching(scripted: ScriptedServer, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "in").mkdir()
    arguments = ["--watch", tmp_path / "in", "-o", tmp_path / "out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "rehue_client", "colorize", *map(str, arguments)],
        env=os.environ | {"REHUE_SERVER": scripted.grpc_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    assert "watching" in process.stderr.readline()
    yield process
    process.kill()
    process.communicate()


def test_what_arrives_is_colorized_and_moved_aside(
    watching: subprocess.Popen[str], tmp_path: Path
) -> None:
    incoming, out = tmp_path / "in", tmp_path / "out"
    (incoming / "1912").mkdir()
    shutil.copy(COFFEE, incoming / "1912" / "a.jpg")
    (incoming / "b.jpg").write_bytes(b"bad")
    (incoming / "notes.txt").write_text("no photograph")
    wait_for(lambda: (incoming / "failed" / "b.jpg").exists())
    wait_for(lambda: (incoming / "done" / "1912" / "a.jpg").exists())
    assert (out / "1912" / "a.jpg").read_bytes() == COFFEE.read_bytes()
    assert (incoming / "notes.txt").exists()
    shutil.copy(COFFEE, incoming / "1912" / "a.jpg")  # the same name again
    wait_for(lambda: (incoming / "done" / "1912" / "a-2.jpg").exists())
    watching.send_signal(signal.SIGTERM)
    output, errors = watching.communicate(timeout=30)
    assert watching.returncode == 143
    assert "colorized" in output
    assert "Traceback" not in errors


def test_a_file_that_grows_is_not_taken(
    watching: subprocess.Popen[str], scripted: ScriptedServer, tmp_path: Path
) -> None:
    data = COFFEE.read_bytes()
    with (tmp_path / "in" / "slow.jpg").open("wb") as file:
        for part in range(8):
            file.write(data[part * len(data) // 8 : (part + 1) * len(data) // 8])
            file.flush()
            time.sleep(2.5 if part == 3 else 0.4)  # a scanner's carriage returns
    wait_for(lambda: (tmp_path / "in" / "done" / "slow.jpg").exists())
    assert (tmp_path / "out" / "slow.jpg").read_bytes() == data
    assert [request.image for request in scripted.requests] == [data]


def test_output_must_be_elsewhere(
    scripted: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        ([tmp_path, "-o", tmp_path], "other than the one it watches"),
        ([COFFEE, "-o", tmp_path], "needs a folder"),
        ([tmp_path, "-o", tmp_path / "out", "--resume"], "--watch takes one folder"),
    ):
        words = [str(word) for word in arguments]
        assert command.main(["colorize", "--watch", *words, "--server", scripted.grpc_url]) == 2
        assert message in capsys.readouterr().err
    assert not scripted.requests
