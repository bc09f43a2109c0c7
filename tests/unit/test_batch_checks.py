"""What is found before the first photograph, and said in one sentence."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest

from rehue_core.edits import Edits, Hint
from rehue_serve.batch import stores
from rehue_serve.batch.checks import check_collisions, check_locations
from rehue_serve.batch.command import _build_options, add_batch_command
from rehue_serve.batch.lock import hold_target
from rehue_serve.batch.options import BatchFailed, Options
from rehue_serve.batch.runtime import provide_triton
from rehue_serve.batch.sources import Source
from rehue_serve.batch.stores import FOLDER, UNFINISHED, clean_location
from rehue_serve.errors import InvalidParameter
from rehue_serve.parameters import ColorizeParameters
from rehue_serve.reference import read_palette
from rehue_serve.settings import Settings
from rehue_serve.testing.s3 import S3

MODEL = {"model": "rehue"}


def make_options(source: object, target: object, **parameters: str) -> Options:
    format = parameters.get("format", "auto")
    return Options(
        Source.parse(str(source), format=format), clean_location(str(target)), Settings(),
        MODEL | parameters,
    )  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"x")
    return folder


def find_problem(options: Options) -> str:
    with pytest.raises(BatchFailed) as raised:
        check_locations(options)
    return str(raised.value)


def test_source_and_target_that_can_be_used_leave_nothing_behind(
    source: Path, tmp_path: Path
) -> None:
    check_locations(make_options(source, tmp_path / "target"))
    assert [path for path in (tmp_path / "target").rglob("*") if path.is_file()] == []


def test_a_source_that_is_missing_or_empty(tmp_path: Path) -> None:
    problem = find_problem(make_options(tmp_path / "gone", tmp_path / "target"))
    assert problem == f"The source {tmp_path}/gone cannot be used: there is no such folder."
    (tmp_path / "empty").mkdir()
    problem = find_problem(make_options(tmp_path / "empty", tmp_path / "target"))
    assert problem == f"There is no photograph in {tmp_path}/empty."


def test_one_photograph_is_for_the_other_command(source: Path, tmp_path: Path) -> None:
    assert "use `rehue colorize`" in find_problem(make_options(source / "a.jpg", tmp_path / "t"))


@pytest.mark.parametrize(("first", "second"), [("s", "s"), ("s", "s/t"), ("s/t", "s")])
def test_source_and_target_in_each_other(tmp_path: Path, first: str, second: str) -> None:
    assert "not be the same" in find_problem(make_options(tmp_path / first, tmp_path / second))


def test_a_target_that_cannot_be_written(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    problem = find_problem(make_options(source, tmp_path / "file"))
    assert problem.startswith(f"The target {tmp_path}/file cannot be used: ")


def test_a_protocol_without_its_package(tmp_path: Path) -> None:
    problem = find_problem(make_options("gs://archive", tmp_path / "target"))
    assert "pip install '.[gcs]'" in problem
    problem = find_problem(make_options("nonsense://archive", tmp_path / "target"))
    assert problem.startswith("The source nonsense://archive cannot be used: nonsense://: ")


def test_collisions_are_listed(source: Path, tmp_path: Path) -> None:
    (source / "a.png").write_bytes(b"x")
    check_collisions(make_options(source, tmp_path / "target"))
    with pytest.raises(BatchFailed, match=r"overwrite each other:\n  a\.png: a\.webp is the"):
        check_collisions(make_options(source, tmp_path / "target", format="webp"))


def test_photographs_whose_format_is_not_written_collide_too(source: Path, tmp_path: Path) -> None:
    (source / "a.heic").write_bytes(b"x")
    with pytest.raises(BatchFailed, match=r"  a\.jpg: a\.jpg is the output of a\.heic too"):
        check_collisions(make_options(source, tmp_path / "target"))


def test_a_store_that_does_not_answer_is_said_without_a_query(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in S3(9).environment.items():  # nothing listens there
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("rehue_serve.batch.s3.MOST_RETRIES", 0)
    monkeypatch.setattr(stores, "_open_store", stores._open_store.__wrapped__)
    problem = find_problem(make_options("s3://archive/scans", tmp_path / "target"))
    assert problem == (
        "The source s3://archive/scans cannot be used: "
        "http://127.0.0.1:9/archive - HTTP error: error sending request."
    )
    problem = find_problem(make_options(source, "s3://pictures/colour"))
    assert problem == (
        "The target s3://pictures/colour cannot be used: "
        "http://127.0.0.1:9/pictures/colour/.rehue/check - HTTP error: error sending request."
    )


def test_an_unknown_model_is_found_before_triton_starts(source: Path, tmp_path: Path) -> None:
    options = replace(make_options(source, tmp_path / "target"), parameters={"model": "none"})
    problem = r"no model 'none' in .*; there are: .*seed"
    with pytest.raises(BatchFailed, match=problem), provide_triton(options):
        pass


def test_two_jobs_do_not_share_a_local_target(tmp_path: Path) -> None:
    left = tmp_path / FOLDER / UNFINISHED / "left by a kill"
    left.parent.mkdir(parents=True)
    left.touch()
    with hold_target(str(tmp_path)):
        assert not left.exists()
        with pytest.raises(BatchFailed, match="Another job"), hold_target(str(tmp_path)):
            pass
    with hold_target(str(tmp_path)):
        pass


def build_options(*words: str) -> Options:
    parser = argparse.ArgumentParser()
    add_batch_command(parser.add_subparsers())
    return _build_options(parser.parse_args(["batch", "in", "out", *words]))


def test_parameters_are_those_of_the_api() -> None:
    options = build_options("--strength", "0.5", "--parameter", "quality=80", "--format", "png")
    assert options.parameters == ColorizeParameters(
        model="rehue", strength=0.5, quality=80, format="png"
    ).model_dump()  # fmt: skip
    assert options.source.format == "png"
    assert ColorizeParameters(**options.parameters).build_parameters().quality == 80
    words = ("--depth", "8", "--profile", "keep", "--mark", "visible", "--metadata", "none")
    chosen = ColorizeParameters(**build_options(*words).parameters)
    assert (chosen.depth, chosen.profile, chosen.mark, chosen.metadata) == words[1::2]
    with pytest.raises(InvalidParameter, match="depth"):
        build_options("--depth", "9")
    with pytest.raises(InvalidParameter, match="did you mean quality"):
        build_options("--parameter", "qality=80")
    with pytest.raises(SystemExit):
        build_options("--strength", "3")


def test_edits_are_options_of_their_own(
    tmp_path: Path, photo: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "edits.json"
    kept.write_text('{"version": 1, "strength": 0.8, "tint": -0.1, "palette": ["#123456"]}')
    album = ["--edits", str(kept), "--warmth", "0.2", "--hint", "0.4,0.6=#7a1f2b"]
    built = ColorizeParameters(**build_options(*album).parameters).build_parameters()
    assert built.strength == 0.8
    assert built.edits == Edits(
        warmth=0.2, tint=-0.1, hints=(Hint(0.4, 0.6, "#7a1f2b"),), palette=("#123456",)
    )
    reference = tmp_path / "reference.jpg"
    reference.write_bytes(photo)
    options = build_options("--reference", str(reference), "--palette-strength", "0.5")
    palette = ColorizeParameters(**options.parameters).build_parameters().edits.palette
    assert palette == read_palette(photo, max_bytes=10**6, max_pixels=10**6)
    with pytest.raises(BatchFailed, match="both given"):
        build_options("--reference", str(reference), "--palette", "#123456")
    with pytest.raises(BatchFailed, match="no-such"):
        build_options("--edits", "no-such.json")
    with pytest.raises(InvalidParameter, match="reference: "):
        build_options("--reference", str(kept))
    with pytest.raises(SystemExit):
        build_options("--warmth", "7")
    assert "'7' is not a number from -1 to 1" in capsys.readouterr().err


def test_tritons_that_are_named_are_left_to_the_service_beside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not build_options().limits.background
    assert build_options("--background").limits.background
    monkeypatch.setenv("REHUE_TRITON_URLS", "triton:8001")
    assert build_options().limits.background
    assert not build_options("--no-background").limits.background


def test_a_local_picture_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    target = str(tmp_path)
    store = stores.LocalStore()
    store.write(f"{target}/a.jpg", b"old", target)
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        store.write(f"{target}/a.jpg", b"new", target)
    assert (tmp_path / "a.jpg").read_bytes() == b"old"
    assert list((tmp_path / FOLDER / UNFINISHED).iterdir()) == []
