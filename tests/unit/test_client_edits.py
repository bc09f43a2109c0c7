"""Edits in the SDK and the command: documents, options and the journal."""

import argparse
import json
from pathlib import Path

import pytest

from rehue_client import Edits, Hint
from rehue_client.edit_options import add_edit_options, read_edits
from rehue_client.journal import Journal
from rehue_client.outputs import Job
from rehue_client.picture import Options

EDITS = Edits(
    warmth=0.2, hints=(Hint(0.4, 0.6, "#7a1f2b"),), palette=("#102030",), palette_strength=0.5
)


def parse(*words: str) -> tuple[Edits, float]:
    parser = argparse.ArgumentParser()
    add_edit_options(parser)
    return read_edits(parser.parse_args(words))


def test_documents_are_saved_and_loaded(tmp_path: Path) -> None:
    file = tmp_path / "edits.json"
    EDITS.save(file)
    assert Edits.load(file) == EDITS
    assert json.loads(file.read_text())["hints"] == [{"x": 0.4, "y": 0.6, "color": "#7a1f2b"}]
    assert Edits().to_document() == {"version": 1}
    assert EDITS
    assert not Edits()
    assert not Edits(palette_strength=0.5)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "warm": 1}',
             '{"version": 1, "hints": 7}', '{"version": 1, "hints": [{"x": 1}]}'],
)  # fmt: skip
def test_wrong_documents_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "edits.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"edits|hints|JSON"):
        Edits.load(file)


def test_options_count_on_top_of_a_document(tmp_path: Path) -> None:
    file, hints = tmp_path / "edits.json", tmp_path / "hints.json"
    file.write_text(json.dumps(EDITS.to_document() | {"strength": 0.8}))
    hints.write_text('[{"x": 0, "y": 0, "color": "gray"}]')
    assert parse("--edits", str(file)) == (EDITS, 0.8)
    edits, strength = parse(
        "--edits", str(file), "--warmth", "-0.5", "--strength", "1.5", "--hints", str(hints),
        "--hint", "0.1,0.2=#010203",
    )  # fmt: skip
    assert (edits.warmth, edits.palette_strength, strength) == (-0.5, 0.5, 1.5)
    assert edits.hints == (*EDITS.hints, Hint(0, 0, "gray"), Hint(0.1, 0.2, "#010203"))
    assert parse() == (Edits(), 1.0)


@pytest.mark.parametrize("words", [("--warmth", "2"), ("--hint", "0.5=red"), ("--tint", "warm")])
def test_wrong_options_are_refused(words: tuple[str, str]) -> None:
    with pytest.raises(SystemExit):
        parse(*words)


def test_pictures_are_made_again_when_edits_change(tmp_path: Path) -> None:
    source, output = tmp_path / "a.jpg", tmp_path / "out" / "a.jpg"
    output.parent.mkdir()
    source.write_bytes(b"photograph")
    output.write_bytes(b"picture")
    job = Job(source, output)

    def is_done(edits: Edits) -> bool:
        journal = Journal(output.parent, Options(edits=edits))
        journal.load()
        return journal.is_done(job, "rehue/1")

    for edits in (Edits(), EDITS, Edits(reference=b"one")):
        journal = Journal(output.parent, Options(edits=edits))
        journal.add(journal.describe(job), "rehue/1")
        assert is_done(edits)
        assert not is_done(Edits(warmth=0.9))
        assert not is_done(Edits(reference=b"other"))
        assert is_done(Edits()) == (not edits)
