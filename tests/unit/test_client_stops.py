"""What ends a run of `rehue colorize` early."""

import errno
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from colorize_runs import COUNT, list_outputs, run_colorize, start_colorize
from waiting import wait_for

from rehue_client.picture import Picture
from rehue_serve.testing.scripted import (
    Action,
    Delay,
    ForeignError,
    Refusal,
    ScriptedServer,
)


def answer_first(count: int, then: Action) -> Callable[[bytes], Action]:
    """Colorize the first photographs, then answer ``then``."""
    return lambda image: None if image < b"photo %02d" % count else then


@pytest.mark.parametrize(
    "then",
    [Refusal("UNAUTHENTICATED"), Refusal("UNKNOWN_MODEL"),
     ForeignError(403, grpc.StatusCode.PERMISSION_DENIED),
     ForeignError(503, grpc.StatusCode.UNAVAILABLE)],
    ids=["revoked key", "model gone", "proxy", "server gone"],
)  # fmt: skip
def test_run_stops_when_no_photograph_can_succeed(
    scripted: ScriptedServer, photos: Path, tmp_path: Path, then: Action,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    scripted.always = answer_first(5, then)
    out = tmp_path / "out"
    arguments = ["--concurrency", 2, "--timeout", 1]
    assert run_colorize(scripted, photos, "-o", out, *arguments) == 1
    # The fifth may still be in flight when the sixth stops the run.
    assert list_outputs(out)[:4] == [f"{number:02}.jpg" for number in range(4)]
    assert len({request.image for request in scripted.requests}) <= 8
    output = capsys.readouterr()
    assert "not done in" in output.out
    assert "stopped: " in output.err


def test_run_stops_when_the_output_folder_is_gone(
    scripted: ScriptedServer, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def remove_output(image: bytes) -> Action:
        if image == b"photo 05":
            shutil.rmtree(out)
            out.write_text("a file")
        return None

    scripted.always = remove_output
    assert run_colorize(scripted, photos, "-o", out, "--concurrency", 1) == 1
    assert len(scripted.requests) == 6
    assert "stopped: cannot write" in capsys.readouterr().err


def test_run_stops_when_the_disk_is_full(
    scripted: ScriptedServer, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def fail(picture: Picture, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Picture, "save", fail)
    assert run_colorize(scripted, photos, "-o", tmp_path / "out", "--concurrency", 1) == 1
    assert len(scripted.requests) == 1
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM]], ids=["INT", "TERM"])
def test_signal_ends_the_command_with_a_summary(
    scripted: ScriptedServer, photos: Path, tmp_path: Path, signals: list[signal.Signals]
) -> None:
    scripted.always = answer_first(4, Delay(20))
    process = start_colorize(scripted, photos, "-o", tmp_path / "out")
    wait_for(lambda: (tmp_path / "out").exists() and len(list_outputs(tmp_path / "out")) == 4)
    process.send_signal(signals[0])
    out, err = process.communicate(timeout=10)
    assert process.returncode == 128 + signals[0]
    assert f"4 colorized, {COUNT - 4} not done in".encode() in out
    assert b"Traceback" not in err


def test_ctrl_c_ends_the_command_while_a_pipe_blocks(
    scripted: ScriptedServer, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    process = start_colorize(scripted, tmp_path / "pipe.png", "-o", tmp_path / "out")
    writer = open_when_read(tmp_path / "pipe.png")  # the command now waits for its content
    try:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    finally:
        os.close(writer)
    assert process.returncode == 130


def open_when_read(pipe: Path) -> int:
    """Wait until another process reads a pipe; return a descriptor that keeps it waiting."""
    end = time.monotonic() + 15
    while True:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # no reader yet
            assert time.monotonic() < end, "timed out"
            time.sleep(0.02)


def test_closed_output_of_json_lines_stops_the_run(
    scripted: ScriptedServer, photos: Path, tmp_path: Path
) -> None:
    scripted.always = lambda image: Delay(0.1)
    process = start_colorize(scripted, photos, "-o", tmp_path / "out", "--json", "--concurrency", 1)
    process.stdout.readline()  # type: ignore[union-attr]
    process.stdout.close()  # type: ignore[union-attr]
    assert process.wait(20) == 1
    error = process.stderr.read()  # type: ignore[union-attr]
    assert b"stopped: standard output was closed" in error
    assert b"Traceback" not in error
    assert b"ignored" not in error
    assert len(scripted.requests) < COUNT
    process.stdin.close()  # type: ignore[union-attr]
    process.stderr.close()  # type: ignore[union-attr]
