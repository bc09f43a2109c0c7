"""`rehue colorize --resume`: what is colorized again."""

import os
from pathlib import Path

from colorize_runs import COUNT, run_colorize

from rehue_client import journal
from rehue_serve.testing.scripted import (
    ScriptedServer,
)


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
