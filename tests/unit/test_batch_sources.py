"""What a job finds in folders, patterns and lists, and the names of its pictures."""

import os
from pathlib import Path

import pytest

from rehue_serve.batch.sources import NAME_COLLISION, Photograph, Source, mark_collisions


def write_files(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def list_names(source: Source) -> list[str]:
    return [photograph.name for photograph in source.list_photographs()]


def test_a_folder_is_searched_and_the_rest_is_counted(tmp_path: Path) -> None:
    write_files(tmp_path, "b.jpg", "a.TIF", "sub/c.heic", "note.txt", ".hidden.jpg", ".x/d.jpg")
    source = Source.parse(str(tmp_path))
    photographs = list(source.list_photographs())
    assert [(p.name, p.output) for p in photographs] == [
        ("a.TIF", "a.TIF"),
        ("b.jpg", "b.jpg"),
        ("sub/c.heic", "sub/c.jpg"),
    ]
    assert photographs[0].location == str(tmp_path / "a.TIF")
    assert photographs[0].size == len("a.TIF")
    assert source.left_out == {".txt": 1}


def test_a_changed_file_has_another_version(tmp_path: Path) -> None:
    write_files(tmp_path, "a.jpg")
    source = Source.parse(str(tmp_path))
    (before,) = source.list_photographs()
    os.utime(tmp_path / "a.jpg", ns=(1, 1))
    (after,) = source.list_photographs()
    assert before.version != after.version


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg"]),
        ("**/*.jpg", ["a.jpg", "x/b.jpg", "x/y/c.jpg"]),
        ("x/*.jpg", ["x/b.jpg"]),
        ("?/**/c.jpg", ["x/y/c.jpg"]),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    write_files(tmp_path, "a.jpg", "x/b.jpg", "x/y/c.jpg", "x/d.png")
    source = Source.parse(f"{tmp_path}/{pattern}")
    names = [str(Path(p.location).relative_to(tmp_path)) for p in source.list_photographs()]
    assert names == expected


def test_a_folder_that_cannot_be_read_is_a_failure_and_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, "closed/a.jpg", "open/b.jpg")
    scan = os.scandir

    def scan_open(folder: Path) -> object:  # root may read everything
        if folder.name == "closed":
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scan_open)
    closed, b = Source.parse(str(tmp_path)).list_photographs()
    assert (closed.name, closed.reason) == ("closed/", "UNREADABLE")
    assert b.name == "open/b.jpg"


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".parquet"])
def test_lists(tmp_path: Path, suffix: str) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    write_files(tmp_path, "scans/a.jpg", "scans/b.tif")
    names = ["scans/a.jpg", str(tmp_path / "scans/b.tif"), "gone.jpg", "../up.jpg", "x.pdf"]
    path = tmp_path / f"list{suffix}"
    if suffix == ".parquet":
        parquet.write_table(pa.table({"id": range(5), "path": names}), path)
    else:
        head = "id,url\n" if suffix == ".csv" else "# a comment\n\n"
        rows = [f"1,{name}" if suffix == ".csv" else name for name in names]
        path.write_text(head + "\n".join(rows))
    a, b, *others = Source.parse(str(path)).list_photographs()
    assert (a.name, a.output, a.size) == ("scans/a.jpg", "scans/a.jpg", len("scans/a.jpg"))
    assert b.location == str(tmp_path / "scans/b.tif")
    assert b.name == b.location.lstrip("/")
    assert [other.reason for other in others] == ["UNREADABLE", "UNREADABLE", "UNSUPPORTED_IMAGE"]


def test_a_list_without_a_known_column_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("name\na.jpg\n")
    with pytest.raises(OSError, match="needs a column named"):
        list(Source.parse(str(tmp_path / "list.csv")).list_photographs())


def test_pictures_that_would_overwrite_each_other_are_found(tmp_path: Path) -> None:
    write_files(tmp_path, "a-1.jpg", "a.jpg", "a.jpg.jpg", "a.tif", "b/a.tif", "b/a.x.tif")
    source = Source.parse(str(tmp_path), format="webp")
    reasons = {p.name: p.reason for p in source.list_photographs()}
    assert [name for name, reason in reasons.items() if reason == NAME_COLLISION] == ["a.tif"]
    assert len(reasons) == 6


def test_in_a_list_collisions_are_found_wherever_they_are() -> None:
    names = ["a.jpg", "z.jpg", "a.png"]
    photographs = [Photograph(name, name, name[0] + ".webp") for name in names]
    assert [p.reason for p in mark_collisions(photographs, in_order=False)] == [
        "",
        "",
        NAME_COLLISION,
    ]


def test_names_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    (photograph,) = Source.parse(str(tmp_path)).list_photographs()
    assert os.fsencode(photograph.output) == b"caf\xe9.jpg"
