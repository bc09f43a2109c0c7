"""Which files `rehue colorize` takes, and the names and formats of its outputs."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from colorize_runs import COFFEE, COUNT, list_outputs, run_colorize, start_colorize

from rehue_client.picture import READ_SUFFIXES, SUFFIX_FORMATS
from rehue_serve.testing.scripted import (
    Refusal,
    ScriptedServer,
)


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
    assert "x.heic is read, but not written; written are .jfif," in capsys.readouterr().err


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
