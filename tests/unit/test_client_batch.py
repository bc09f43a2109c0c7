"""What `rehue colorize` checks, reports and skips."""

import contextlib
import errno
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from rehue_client import command, journal, report
from rehue_client.picture import READ_SUFFIXES, SUFFIX_FORMATS, Picture
from rehue_serve.testing.scripted import (
    Action,
    Delay,
    ForeignError,
    Refusal,
    ScriptedServer,
    serve,
)

COFFEE = Path(__file__).parents[1] / "photos" / "skimage_coffee.jpg"
COUNT = 40


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    with serve(ScriptedServer()) as server:
        yield server


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(COUNT):
        (folder / f"{number:02}.jpg").write_bytes(b"photo %02d" % number)
    return folder


def run_colorize(scripted: ScriptedServer, *arguments: object) -> int:
    return command.main(["colorize", *map(str, arguments), "--server", scripted.grpc_url])


def start_colorize(scripted: ScriptedServer, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "rehue_client", "colorize", *map(str, arguments),
         "--server", scripted.grpc_url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def list_outputs(folder: Path) -> list[str]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != journal.NAME)
    return sorted(str(p.relative_to(folder)) for p in files)


def wait_for(condition: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


# Formats and file names


@pytest.mark.parametrize(
    ("name", "format"), [("x.png", "png"), ("x.JFIF", "jpeg"), ("x.tif", "tiff")]
)
def test_suffix_of_the_output_decides_the_format(
    scripted: ScriptedServer, tmp_path: Path, name: str, format: str
) -> None:
    assert run_colorize(scripted, COFFEE, "-o", tmp_path / name) == 0
    assert scripted.requests[0].options["format"] == format


def test_suffix_that_disagrees_with_the_format_is_an_error(
    scripted: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_colorize(scripted, COFFEE, "-o", tmp_path / "x.png", "--format", "jpeg") == 2
    assert "x.png stands for png, but the format is jpeg" in capsys.readouterr().err
    assert not scripted.requests


def test_all_suffixes_of_photographs_are_found(scripted: ScriptedServer, tmp_path: Path) -> None:
    suffixes = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "tif", "tiff"]
    for suffix in suffixes:
        (tmp_path / f"{suffix}.{suffix.upper()}").write_bytes(suffix.encode())
    assert run_colorize(scripted, tmp_path, "-o", tmp_path / "out") == 0
    assert list_outputs(tmp_path / "out") == sorted(f"{s}.{s.upper()}" for s in suffixes)
    formats = {r.image.decode(): r.options["format"] for r in scripted.requests}
    assert formats == dict.fromkeys(["jpg", "jpeg", "jpe", "jfif"], "jpeg") | {
        "png": "png", "webp": "webp", "tif": "tiff", "tiff": "tiff",
    }  # fmt: skip


def test_documentation_lists_all_suffixes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "command.md").read_text()
    assert [s for s in (*SUFFIX_FORMATS, *READ_SUFFIXES) if f"`{s}`" not in page] == []


def test_formats_that_are_only_read_get_the_suffix_of_the_answer(
    scripted: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.heic", "a.jpg", "b.GIF"):
        (tmp_path / name).write_bytes(name.encode())
    assert run_colorize(scripted, tmp_path, "-o", tmp_path / "out") == 0
    assert list_outputs(tmp_path / "out") == ["a.heic.jpg", "a.jpg", "b.png"]
    assert run_colorize(scripted, tmp_path / "a.jpg", "-o", tmp_path / "x.heic") == 2
    assert "x.heic stands for a format that is not written" in capsys.readouterr().err


def test_equal_names_with_different_suffixes_get_names_of_their_own(
    scripted: ScriptedServer, tmp_path: Path
) -> None:
    for name in ("a.jpg", "a.png"):
        (tmp_path / name).write_bytes(name.encode())
    assert run_colorize(scripted, tmp_path, "-o", tmp_path / "out", "--format", "webp") == 0
    assert list_outputs(tmp_path / "out") == ["a.png.webp", "a.webp"]
    assert (tmp_path / "out" / "a.png.webp").read_bytes() == b"a.png"


def test_what_is_left_out_is_reported(
    scripted: ScriptedServer, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(photos / "pipe.png")
    for name in ("a.psd", "b.PSD", "notes", ".hidden.jpg"):
        (photos / name).write_bytes(b"x")
    (photos / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(COFFEE, tmp_path / "elsewhere" / "linked.jpg")
    (photos / "link").symlink_to(tmp_path / "elsewhere")
    assert run_colorize(scripted, photos, "-o", tmp_path / "out") == 0
    assert len(scripted.requests) == COUNT
    assert capsys.readouterr().out.splitlines()[1] == (
        "left out: 2 .psd file, 1 broken link, 1 file without suffix, 1 hidden file, "
        "1 linked folder (see --follow-links), 1 pipe"
    )
    (photos / "link" / "loop").symlink_to(photos)
    assert run_colorize(scripted, photos, "-o", tmp_path / "out2", "--follow-links") == 0
    assert (tmp_path / "out2" / "link" / "linked.jpg").exists()
    assert len(scripted.requests) == 2 * COUNT + 1
    assert "1 linked folder that contains itself" in capsys.readouterr().out


def test_unreadable_folder_is_a_failure(
    scripted: ScriptedServer, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (photos / "closed").mkdir()
    scan = os.scandir

    def refuse(path: Path) -> object:  # root may read every folder, so chmod is not enough
        if path == photos / "closed":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert run_colorize(scripted, photos, "-o", tmp_path / "out") == 1
    assert len(scripted.requests) == COUNT
    assert f"failed: {photos / 'closed'}: cannot read: Permission denied" in capsys.readouterr().err


def test_large_file_is_not_sent(
    scripted: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(1500 * 1024**2)
    assert run_colorize(scripted, tmp_path / "large.png", "-o", tmp_path / "out") == 1
    assert "1,572,864,000 bytes; the limit is 1,258,291,200" in capsys.readouterr().err
    assert not scripted.requests
    small = ["--max-bytes", 10]
    assert run_colorize(scripted, COFFEE, "-o", tmp_path / "out", *small) == 1


# Checks before the first photograph


@pytest.mark.parametrize(
    ("reason", "hint"),
    [("UNAUTHENTICATED", "--api-key-file"), ("UNKNOWN_MODEL", "--model"),
     ("INVALID_PARAMETER", "--help"), ("INTERNAL", "request r-1")],
)  # fmt: skip
def test_server_is_checked_before_the_first_photograph(
    scripted: ScriptedServer, photos: Path, tmp_path: Path, reason: str, hint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    scripted.probe = Refusal(reason)
    assert run_colorize(scripted, photos, "-o", tmp_path / "out", "--model", "seed") == 2
    assert hint in capsys.readouterr().err
    assert (len(scripted.probes), len(scripted.requests)) == (1, 0)
    assert scripted.probes[0].options["model"] == "seed"
    assert not (tmp_path / "out").exists()


def test_single_photograph_is_sent_without_a_test_image(
    scripted: ScriptedServer, tmp_path: Path
) -> None:
    assert run_colorize(scripted, COFFEE, "-o", tmp_path / "out") == 0
    assert not scripted.probes


@pytest.mark.parametrize(
    "arguments",
    [["--strength", "2.1"], ["--strength", "nan"], ["--quality", "0"], ["--quality", "x"],
     ["--concurrency", "0"], ["--format", "bmp"], ["--timeout", "0"], ["--timeout", "nan"]],
    ids=" ".join,
)  # fmt: skip
def test_options_out_of_range_are_refused(
    scripted: ScriptedServer, tmp_path: Path, arguments: list[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_colorize(scripted, COFFEE, "-o", tmp_path, *arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [("a\nb\n", "2 keys"), ("\n# none\n", "0 keys"), ("schl\u00fc", "ASCII")],
)
def test_unusable_key_file_is_a_sentence(
    scripted: ScriptedServer, tmp_path: Path, content: str, message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "key").write_text(content)
    arguments = [COFFEE, "-o", tmp_path / "out", "--api-key-file", tmp_path / "key"]
    assert run_colorize(scripted, *arguments) == 2
    output = capsys.readouterr().err
    assert message in output
    assert len(output.splitlines()) == 1


def test_key_file_may_have_a_byte_order_mark_and_comments(
    scripted: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("# mine\nsecret\n", encoding="utf-8-sig")
    arguments = [COFFEE, "-o", tmp_path / "out", "--api-key-file", tmp_path / "key"]
    assert run_colorize(scripted, *arguments) == 0
    assert scripted.requests[0].authorization == "Bearer secret"


# Stopping early


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


# What is printed


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


def test_file_names_that_are_not_utf8_are_no_obstacle(
    scripted: ScriptedServer, tmp_path: Path
) -> None:
    folder, out, failures = tmp_path / "photos", tmp_path / "out", tmp_path / "failures"
    folder.mkdir()
    for name in (b"gr\xfc\xdfe.jpg", b"bad \xfc.jpg"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(name[:3])
    scripted.always = lambda image: Refusal("INVALID_IMAGE") if image == b"bad" else None
    dry = start_colorize(scripted, folder, "-o", out, "--dry-run")
    assert b"gr\xfc\xdfe.jpg -> " in dry.communicate(timeout=20)[0]
    process = start_colorize(scripted, folder, "-o", out, "--failures", failures)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 1
    assert b"Traceback" not in error
    assert b"gr\xfc\xdfe.jpg" in [os.fsencode(path.name) for path in out.iterdir()]
    assert b"bad \xfc.jpg\t" in failures.read_bytes()


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


# Standard input and output


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


# --resume


def count_new_requests(scripted: ScriptedServer, *arguments: object) -> int:
    before = len(scripted.requests)
    assert run_colorize(scripted, *arguments, "--resume") == 0
    return len(scripted.requests) - before


def test_resume_notices_what_has_changed(
    scripted: ScriptedServer, photos: Path, tmp_path: Path
) -> None:
    arguments = [photos, "-o", tmp_path / "out"]
    assert count_new_requests(scripted, *arguments) == COUNT
    assert count_new_requests(scripted, *arguments) == 0
    (photos / "03.jpg").write_bytes(b"another photograph")
    assert count_new_requests(scripted, *arguments) == 1
    assert (tmp_path / "out" / "03.jpg").read_bytes() == b"another photograph"
    os.utime(photos / "04.jpg", (1, 1))  # older than its picture, and yet another file
    (tmp_path / "out" / "05.jpg").unlink()
    assert count_new_requests(scripted, *arguments) == 2
    assert count_new_requests(scripted, *arguments, "--strength", 1.5) == COUNT
    assert count_new_requests(scripted, *arguments, "--strength", 1.5) == 0
    assert count_new_requests(scripted, *arguments, "--strength", 1.5, "--quality", 80) == COUNT
    scripted.model = "rehue/2"
    changed = [*arguments, "--strength", 1.5, "--quality", 80]
    assert count_new_requests(scripted, *changed) == COUNT
    assert count_new_requests(scripted, *changed) == 0


def test_resume_without_a_journal_compares_times(
    scripted: ScriptedServer, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run_colorize(scripted, photos, "-o", out) == 0
    (out / journal.NAME).write_text('{"output": "00.jpg", "sour\nnot JSON\n[]\n')
    os.utime(out / "07.jpg", (1, 1))
    assert count_new_requests(scripted, photos, "-o", out) == 1
