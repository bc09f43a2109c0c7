"""The manifest: records survive kills, the last one counts, and decides what is done again."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rehue_serve.batch.index import Index
from rehue_serve.batch.manifest import (
    DONE,
    FAILED,
    MOST_PARTS,
    Recipe,
    Record,
    Writer,
    hash_name,
    hash_version,
    list_parts,
    read_records,
)
from rehue_serve.batch.options import Options
from rehue_serve.batch.pending import (
    Counts,
    count_photographs,
    list_pending,
    list_windows,
    parse_window,
)
from rehue_serve.batch.pictures import Pictures
from rehue_serve.batch.sources import Source
from rehue_serve.settings import Settings

RECIPE = Recipe.build("rehue/1", {"strength": 1.0})


def make_record(name: str, run: str = "1", **values: Any) -> Record:
    return replace(Record(name, name, DONE, run=run, key=hash_name(name)), **values)


def write_records(target: Path, run: str, *records: Record) -> Writer:
    writer = Writer(str(target), run)
    for record in records:
        writer.add(record)
        writer.flush()
    return writer


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    record = make_record("a.jpg", message="ünïcode", ms=1.5, finished=1_700_000_000_123, pages=2)
    write_records(tmp_path, "1", record)
    (read,) = read_records(str(tmp_path))
    assert replace(read, finished=record.finished) == record


def test_the_last_record_counts_before_and_after_merging(tmp_path: Path) -> None:
    write_records(tmp_path, "1", *(make_record(f"{i}.jpg", status=FAILED) for i in range(5)))
    writer = write_records(tmp_path, "2", *(make_record(f"{i}.jpg", "2") for i in range(1, 5)))
    for _ in range(2):
        statuses = {record.source: record.status for record in read_records(str(tmp_path))}
        assert statuses == {"0.jpg": FAILED} | {f"{i}.jpg": DONE for i in range(1, 5)}
        index = Index(str(tmp_path), "3")
        known = [index.find(f"{i}.jpg") for i in range(5)]
        assert [photograph and photograph.done for photograph in known] == [False] + [True] * 4
        writer.compact()
    assert len(list_parts(str(tmp_path))) == 1


def test_a_kill_between_merging_and_deleting_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = write_records(tmp_path, "1", make_record("a.jpg"), make_record("b.jpg"))

    def kill(_: Path, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", kill)
    with pytest.raises(KeyboardInterrupt):
        writer.compact()
    monkeypatch.undo()
    assert {record.source for record in read_records(str(tmp_path))} == {"a.jpg", "b.jpg"}


def test_the_parts_of_a_long_run_stay_few(tmp_path: Path) -> None:
    count = MOST_PARTS + 10
    write_records(tmp_path, "1", *(make_record(f"{i}.jpg") for i in range(count)))
    assert len(list_parts(str(tmp_path))) < MOST_PARTS
    assert len(list(read_records(str(tmp_path)))) == count


def make_job(tmp_path: Path, **values: Any) -> Options:
    source = tmp_path / "source"
    source.mkdir(exist_ok=True)
    for name in ("done.jpg", "bad.jpg", "busy.jpg", "new.jpg"):
        if not (source / name).exists():
            (source / name).write_bytes(b"x")
    options = Options(Source.parse(str(source)), str(tmp_path / "target"), Settings(), run="2")
    return replace(options, **values)


def write_outcomes(options: Options, run: str = "1") -> None:
    """Record what an earlier run did with three of the four photographs."""
    outcomes = {
        "done.jpg": (DONE, ""),
        "bad.jpg": (FAILED, "INVALID_IMAGE"),
        "busy.jpg": (FAILED, "UNAVAILABLE"),
    }
    target = Path(options.target)
    for photograph in options.source.list_photographs():
        if photograph.name in outcomes:
            status, reason = outcomes[photograph.name]
            fingerprint = hash_version(photograph, RECIPE)
            record = make_record(
                photograph.name, run, status=status, reason=reason, fingerprint=fingerprint
            )
            write_records(target, f"{run}{photograph.name}", record)
    (target / "done.jpg").write_bytes(b"picture")


def list_names(options: Options, recipe: Recipe = RECIPE) -> list[str]:
    index, pictures = Index(options.target, options.run), Pictures(options.target)
    return [photograph.name for photograph in list_pending(options, recipe, index, pictures)]


def test_a_second_run_does_what_is_new_and_what_may_succeed_now(tmp_path: Path) -> None:
    options = make_job(tmp_path)
    write_outcomes(options)
    assert list_names(options) == ["busy.jpg", "new.jpg"]


@pytest.mark.parametrize(
    ("redo", "expected"),
    [("failed", ["bad.jpg", "busy.jpg"]), ("all", ["bad.jpg", "busy.jpg", "done.jpg", "new.jpg"])],
)
def test_what_is_asked_for_is_done_again(tmp_path: Path, redo: str, expected: list[str]) -> None:
    options = make_job(tmp_path, redo=redo)
    write_outcomes(options)
    assert list_names(options) == expected


def test_what_this_run_did_is_not_done_again_even_by_overwrite(tmp_path: Path) -> None:
    options = make_job(tmp_path, redo="all")
    write_outcomes(options, run="2")
    index = Index(options.target, "2")
    names = [photograph.name for photograph in list_pending(options, RECIPE, index)]
    assert names == ["new.jpg"]


def test_a_changed_source_model_or_parameter_is_noticed(tmp_path: Path) -> None:
    options = make_job(tmp_path)
    write_outcomes(options)
    everything = ["bad.jpg", "busy.jpg", "done.jpg", "new.jpg"]
    assert list_names(options, Recipe.build("rehue/2", {"strength": 1.0})) == everything
    assert list_names(options, Recipe.build("rehue/1", {"strength": 2.0})) == everything
    os.utime(tmp_path / "source" / "done.jpg", ns=(1, 1))
    assert list_names(options) == ["busy.jpg", "done.jpg", "new.jpg"]


def test_a_parameter_with_its_default_changes_no_picture(tmp_path: Path) -> None:
    options = make_job(tmp_path)
    write_outcomes(options)
    recipe = Recipe.build("rehue/1", {"strength": 1.0, "look": "whole"})  # of a later version
    assert list_names(options, recipe) == list_names(options)


def test_a_picture_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    options = make_job(tmp_path)
    write_outcomes(options)
    (tmp_path / "target" / "done.jpg").unlink()
    assert "done.jpg" in list_names(options)


@pytest.mark.parametrize(
    ("redo", "expected"),
    [
        ("changed", Counts(done=1, failed=1, missing=2, pending=2)),
        ("failed", Counts(done=1, failed=0, missing=3, pending=2)),
        ("all", Counts(missing=4, pending=4)),
    ],
)
def test_photographs_of_the_source_are_counted(tmp_path: Path, redo: str, expected: Counts) -> None:
    options = make_job(tmp_path, redo=redo)
    write_outcomes(options)
    # A folder that could not be listed, and can now; a photograph that is no longer there.
    for name in ("box/", "gone.jpg"):
        write_records(Path(options.target), f"1{name[:3]}", make_record(name, status=FAILED))
    assert count_photographs(options, RECIPE) == expected


def test_windows_hold_everything_that_is_pending(tmp_path: Path) -> None:
    options = make_job(tmp_path)
    windows = [parse_window(window) for window in list_windows(options, RECIPE, 3)]
    assert [len(window) for window in windows] == [3, 1]
    assert [p.name for window in windows for p in window] == list_names(options)


def test_a_million_photographs_are_indexed_in_17_bytes_each(tmp_path: Path) -> None:
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    from rehue_serve.batch.manifest import MANIFEST, get_schema

    count = 1_000_000
    columns: dict[str, Any] = {field.name: pa.nulls(count, field.type) for field in get_schema()}
    keys = np.random.default_rng(0).integers(0, 2**63, count, np.uint64)
    keys[-1] = hash_name("a.jpg")
    columns |= {"key": pa.array(keys), "fingerprint": pa.array(keys)}
    columns |= {"status": pa.repeat(DONE, count), "reason": pa.repeat("", count)}
    columns |= {"run": pa.repeat("1", count)}
    folder = tmp_path / MANIFEST
    folder.mkdir(parents=True)
    parquet.write_table(pa.table(columns), folder / "1-00000001.parquet")
    index = Index(str(tmp_path), "2")
    assert index.find("a.jpg") is not None
    assert index.find("b.jpg") is None
    arrays = [value for value in vars(index).values() if isinstance(value, np.ndarray)]
    assert sum(array.nbytes for array in arrays) == 17 * count
