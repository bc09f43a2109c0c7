"""The `rehue` command as a user runs it."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from colorize_runs import COFFEE, list_outputs, refuse_bad, run_colorize
from waiting import wait_for

from rehue_client import __version__, command
from rehue_serve.testing.scripted import Delay, Refusal, ScriptedServer, serve

PHOTOS = Path(__file__).parents[1] / "photos"


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    with serve(ScriptedServer(always=refuse_bad)) as server:
        yield server


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with two photographs (one in a subfolder), an invalid one and a text file."""
    folder = tmp_path / "photos"
    (folder / "1912" / "summer").mkdir(parents=True)
    shutil.copy(COFFEE, folder / "a.jpg")
    shutil.copy(COFFEE, folder / "1912" / "summer" / "b.JPEG")
    (folder / "bad.png").write_bytes(b"bad")
    (folder / "notes.txt").write_text("no photograph")
    (folder / ".hidden.jpg").write_bytes(b"hidden")
    return folder


def test_folder_keeps_its_tree_and_failures_are_listed(
    scripted: ScriptedServer, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run_colorize(scripted, photos, "-o", out) == 1
    assert list_outputs(out) == ["1912/summer/b.JPEG", "a.jpg"]
    assert (out / "a.jpg").read_bytes() == COFFEE.read_bytes()
    captured = capsys.readouterr()
    assert captured.out.startswith("2 colorized, 1 failed in ")
    assert f"failed: {photos / 'bad.png'}: as the script says (request r-1)" in captured.err


def test_single_file_into_a_file(scripted: ScriptedServer, tmp_path: Path) -> None:
    assert (
        run_colorize(scripted, COFFEE, "-o", tmp_path / "new" / "coffee.png", "--format", "png")
        == 0
    )
    assert list_outputs(tmp_path) == ["new/coffee.png"]
    assert scripted.requests[0].options["format"] == "png"


def test_format_gives_the_suffix(scripted: ScriptedServer, tmp_path: Path) -> None:
    assert run_colorize(scripted, COFFEE, "-o", tmp_path / "out", "--format", "tiff") == 0
    assert list_outputs(tmp_path) == ["out/skimage_coffee.tif"]


def test_resume_skips_existing_outputs(
    scripted: ScriptedServer, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "bad.png").unlink()
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.jpg").write_bytes(b"done before")
    assert run_colorize(scripted, photos, "-o", out, "--resume") == 0
    assert (out / "a.jpg").read_bytes() == b"done before"
    assert len(scripted.requests) == 1
    assert "1 colorized, 1 already there in" in capsys.readouterr().out
    assert run_colorize(scripted, photos, "-o", out) == 0
    assert (out / "a.jpg").read_bytes() == COFFEE.read_bytes()


def test_source_is_never_overwritten(
    scripted: ScriptedServer, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {name: (photos / name).read_bytes() for name in list_outputs(photos)}
    assert run_colorize(scripted, photos, "-o", photos) == 1
    (tmp_path / "link").symlink_to(photos)
    assert run_colorize(scripted, photos / "a.jpg", "-o", tmp_path / "link") == 1
    assert run_colorize(scripted, photos / "a.jpg", "-o", photos / "a.jpg") == 1
    assert {name: (photos / name).read_bytes() for name in list_outputs(photos)} == before
    assert "is a source and is never overwritten" in capsys.readouterr().err
    assert not scripted.requests


def test_two_outputs_are_never_the_same_file(
    scripted: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(name.encode())
    assert run_colorize(scripted, tmp_path / "one", tmp_path / "two", "-o", tmp_path / "out") == 1
    assert (tmp_path / "out" / "a.jpg").read_bytes() == b"one"
    assert "already the output of" in capsys.readouterr().err


def test_outputs_of_an_earlier_run_are_not_sources(scripted: ScriptedServer, photos: Path) -> None:
    (photos / "bad.png").unlink()
    for _ in range(2):
        assert run_colorize(scripted, photos, "-o", photos / "colour") == 0
    assert list_outputs(photos / "colour") == ["1912/summer/b.JPEG", "a.jpg"]


def test_photograph_named_twice_is_colorized_once(
    scripted: ScriptedServer, photos: Path, tmp_path: Path
) -> None:
    (photos / "bad.png").unlink()
    assert run_colorize(scripted, photos, photos / "a.jpg", "-o", tmp_path / "out") == 0
    assert len(scripted.requests) == 2


def test_file_that_is_missing_is_a_failure_among_others(
    scripted: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_colorize(scripted, "nowhere.jpg", COFFEE, "-o", tmp_path) == 1
    captured = capsys.readouterr()
    assert "1 colorized, 1 failed" in captured.out
    assert "nowhere.jpg: No such file" in captured.err


def test_output_that_cannot_be_written_is_found_before_the_start(
    scripted: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("a file")
    assert run_colorize(scripted, COFFEE, "-o", tmp_path / "out") == 2
    assert not scripted.requests
    assert "cannot write" in capsys.readouterr().err


def test_options_and_key_are_sent(
    scripted: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    key.write_text("from a file\n")
    options = ["--model", "seed", "--strength", "1.5", "--quality", "70", "--format", "jpeg"]
    choices = {"metadata": "none", "depth": "8", "profile": "keep", "mark": "visible"}
    options += [word for name, value in choices.items() for word in (f"--{name}", value)]
    assert run_colorize(scripted, COFFEE, "-o", tmp_path, *options, "--api-key-file", key) == 0
    monkeypatch.setenv("REHUE_API_KEY", "from the environment")
    assert run_colorize(scripted, COFFEE, "-o", tmp_path) == 0
    first, second = scripted.requests
    asked = {"model": "seed", "strength": "1.5", "quality": "70", "format": "jpeg"}
    assert first.options == asked | choices
    assert first.authorization == "Bearer from a file"
    assert second.authorization == "Bearer from the environment"


def test_server_from_the_environment(
    scripted: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REHUE_SERVER", f"{scripted.http_url}, {scripted.grpc_url}")
    assert command.main(["colorize", str(COFFEE), "-o", str(tmp_path)]) == 0
    assert len(scripted.requests) == 1


def test_missing_server_is_reported_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = time.monotonic()
    server = ["--server", "grpc://127.0.0.1:1"]
    assert command.main(["colorize", str(COFFEE), "-o", str(tmp_path), *server]) == 2
    assert time.monotonic() - start < 3
    assert "no server is ready at grpc://127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--server", "ftp://x"], "'ftp://x' is not a server address"),
        (["--api-key-file", "/nowhere"], "rehue: /nowhere: No such file"),
    ],
)
def test_invalid_options_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert command.main(["colorize", str(COFFEE), "-o", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        command.main(["--version"])
    assert capsys.readouterr().out == f"rehue {__version__}\n"


def test_models_are_listed(scripted: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    for url in (scripted.http_url, scripted.grpc_url):
        assert command.main(["models", "--server", url]) == 0
        assert capsys.readouterr().out.split() == ["rehue", "1", "READY", "default"]


@pytest.mark.parametrize("arguments", [["models"], ["candidates", str(COFFEE), "-o", "versions"]])
def test_server_that_is_down_is_not_waited_for(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    start = time.monotonic()
    assert command.main([*arguments, "--server", "http://127.0.0.1:9"]) == 2
    assert "no server is ready at http://127.0.0.1:9: start one" in capsys.readouterr().err
    assert time.monotonic() - start < 10


def test_folder_is_not_written_to_a_file_name(
    scripted: ScriptedServer, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "colour.jpg"
    assert run_colorize(scripted, photos, "-o", out) == 2
    assert "colour.jpg is the name of one file" in capsys.readouterr().err
    assert not out.exists()
    out.mkdir()  # whoever has such a folder may use it
    assert run_colorize(scripted, photos / "bad.png", photos, "-o", out) == 1
    assert list_outputs(out)


def test_ctrl_c_exits_with_130_and_resume_continues(
    scripted: ScriptedServer, photos: Path, tmp_path: Path
) -> None:
    for number in range(8):
        (photos / f"{number}.jpg").write_bytes(b"photo %d" % number)
    (photos / "bad.png").unlink()
    scripted.always = lambda image: None if image < b"photo 4" else Delay(20)
    arguments = ["colorize", str(photos), "-o", str(tmp_path / "out"), "--resume"]
    process = subprocess.Popen(
        [sys.executable, "-m", "rehue_client", *arguments, "--server", scripted.grpc_url],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: len(list_outputs(tmp_path / "out")) == 4)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, time.monotonic() - start < 3) == (130, True)
    assert "4 colorized, 6 not done in" in out
    assert "Traceback" not in err
    assert len(list_outputs(tmp_path / "out")) == 4  # no partial and no temporary files
    scripted.always = None
    assert run_colorize(scripted, photos, "-o", tmp_path / "out", "--resume") == 0
    assert len(list_outputs(tmp_path / "out")) == 10


def test_failing_server_does_not_stop_the_command(
    scripted: ScriptedServer, photos: Path, tmp_path: Path
) -> None:
    scripted.always = lambda image: Refusal("INTERNAL")
    assert run_colorize(scripted, photos, "-o", tmp_path / "out") == 1
    assert len(scripted.requests) == 3
    assert not (tmp_path / "out").exists()


def test_empty_folder_is_reported(
    scripted: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert run_colorize(scripted, tmp_path / "empty", "-o", tmp_path / "out") == 2
    assert "no photographs found" in capsys.readouterr().err
