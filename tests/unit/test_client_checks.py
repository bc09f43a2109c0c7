"""What `rehue colorize` checks before the first photograph."""

from pathlib import Path

import pytest
from colorize_runs import COFFEE, run_colorize

from rehue_serve.testing.scripted import (
    Refusal,
    ScriptedServer,
)


@pytest.mark.parametrize(
    ("reason", "hint"),
    [("UNAUTHENTICATED", "requires an API key, or this one is not valid (see --api-key-file"),
     ("UNKNOWN_MODEL", "--model"),
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
