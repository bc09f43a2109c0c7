"""Reading photographs: three layouts, skipped files, the cache, the split."""

import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray

from rehue_training.data import dataset, files, pack
from rehue_training.errors import InputError

COLOUR = {"cat.png": "chelsea", "coffee.jpg": "coffee", "rocket.jpg": "rocket"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tree of three photographs in colour, one gray, one broken, one tiny, one text."""
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    for name, source in COLOUR.items():
        write_image(tree / "deep" / name, getattr(skimage.data, source)())
    gray = skimage.data.camera()
    write_image(tree / "gray.jpg", np.dstack([gray, gray, gray]))
    whole = (tree / "deep" / "coffee.jpg").read_bytes()
    (tree / "broken.jpg").write_bytes(whole[:100])
    (tree / "empty.png").write_bytes(b"")
    write_image(tree / "tiny.png", skimage.data.chelsea()[:20, :20])
    (tree / "notes.txt").write_text("not a picture")
    return tree


def write_image(path: Path, rgb: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))


def load_dataset(path: Path, cache: Path) -> dataset.Dataset:
    return dataset.load_dataset([path], cache=cache)


def test_a_folder_tree_is_read_with_a_report_of_skipped_files(folder: Path, tmp_path: Path) -> None:
    found = load_dataset(folder, tmp_path)
    assert sorted(Path(name).name for name in found.names) == sorted(COLOUR)
    assert sorted(found.report.corrupt) == ["broken.jpg", "empty.png"]
    assert found.report.gray == ["gray.jpg"]
    assert found.report.small == ["tiny.png"]
    assert str(found.report).startswith("3 photographs kept; skipped 2 corrupt, 1 gray, 1 under")


def test_a_tar_holds_the_same(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "photographs.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(folder, arcname="inside")
    tarred, plain = load_dataset(path, tmp_path), load_dataset(folder, tmp_path)
    assert sorted(Path(name).name for name in tarred.names) == sorted(COLOUR)
    pixels = {Path(name).name: tarred[i] for i, name in enumerate(tarred.names)}
    for index, name in enumerate(plain.names):
        assert np.array_equal(plain[index], pixels[Path(name).name])


def test_kaggles_layout_reads_the_colour_part(tmp_path: Path) -> None:
    home = tmp_path / "kaggle"
    for part, names in {"train": ["chelsea", "coffee"], "test": ["rocket"]}.items():
        for name in names:
            rgb = getattr(skimage.data, name)()
            write_image(home / f"{part}_color" / f"{name}.jpg", rgb)
            gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
            write_image(home / f"{part}_black" / f"{name}.jpg", np.dstack([gray] * 3))
    found = load_dataset(home, tmp_path)
    assert found.names == ["chelsea.jpg", "coffee.jpg"]
    assert found.report.gray == []
    assert [name for name, _ in files.read_files([home], part="test")] == ["rocket.jpg"]


def test_pixels_are_the_photographs_shrunk(folder: Path, tmp_path: Path) -> None:
    found = load_dataset(folder, tmp_path)
    index = found.names.index("deep/cat.png")
    cat = skimage.data.chelsea()  # 300 x 451: PNG keeps every pixel
    assert found[index].shape == (200, 301, 3)
    whole = cv2.resize(cat, (301, 200), interpolation=cv2.INTER_AREA)
    assert np.array_equal(found[index], whole)


def test_the_second_time_nothing_is_decoded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_dataset(folder, tmp_path)

    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(dataset, "decode", refuse)
    again = load_dataset(folder, tmp_path)
    assert again.names == first.names
    assert again.report == first.report
    assert np.array_equal(again[2], first[2])


def test_a_partial_cache_is_made_again(folder: Path, tmp_path: Path) -> None:
    first = load_dataset(folder, tmp_path)
    (index,) = tmp_path.glob("*/index.json")
    index.unlink()
    index.with_name("pixels.u8").write_bytes(b"half")
    assert np.array_equal(load_dataset(folder, tmp_path)[1], first[1])


def test_no_usable_photographs_and_a_missing_path_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere"):
        read_first(tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match="no usable photographs: 0 photographs kept"):
        load_dataset(tmp_path / "bare", tmp_path)


def read_first(path: Path) -> None:
    next(files.read_files([path]))


def test_the_split_keeps_neighbours_together_and_never_changes() -> None:
    names = [f"houses_{number:05}.jpg" for number in range(2000)]
    count = len(names)
    none = np.zeros(0, np.uint8)
    many = dataset.Dataset(
        names, np.ones((count, 2), np.int64), np.arange(count), none, dataset.Report()
    )
    train, validation = many.split(0.1)
    assert sorted(train + validation) == list(range(count))
    assert 0.04 < len(validation) / count < 0.2
    kept = {dataset.parse_group(names[i]) for i in validation}
    assert not kept & {dataset.parse_group(names[i]) for i in train}
    assert many.split(0.1) == (train, validation)


def test_a_group_is_a_run_of_numbers() -> None:
    assert (
        dataset.parse_group("houses_00062.jpg")
        == dataset.parse_group("a/houses_00079.jpg")
        == "houses_3"
    )
    assert dataset.parse_group("houses_00080.jpg") == "houses_4"
    assert dataset.parse_group("portrait.jpg") == "portrait"


def create_dataset(*names: str) -> dataset.Dataset:
    """A dataset with only names, at offsets 0, 1, 2..."""
    count, none = len(names), np.zeros(0, np.uint8)
    shapes = np.ones((count, 2), np.int64)
    return dataset.Dataset(list(names), shapes, np.arange(count), none, dataset.Report())


def test_whole_sources_can_be_held_out() -> None:
    many = create_dataset(
        *(f"{kind}_{number:05}.jpg" for kind in ("sea", "town7") for number in range(500))
    )
    _, validation = many.split(0.05, ("town",))
    assert set(range(500, 1000)) <= set(validation)
    assert 0 < len(validation) - 500 < 100
    with pytest.raises(ValueError, match="no photographs of the source moon"):
        many.split(0.05, ("moon",))


def test_classes_are_selected_by_the_manifest(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.tsv"
    manifest.write_text("file\tlicence\tclass\ntrain/a.jpg\tCC0\tA\ntrain/b.jpg\t?\tU\n")
    three = create_dataset("a.jpg", "b.jpg", "strange.jpg")
    free = three.select_classes(("A", "B"), manifest)
    assert (free.names, free.offsets.tolist()) == (["a.jpg"], [0])
    assert three.select_classes(("U",), manifest).offsets.tolist() == [1]
    with pytest.raises(ValueError, match="with --manifest"):
        three.select_classes(("A",), None)
    with pytest.raises(ValueError, match="of the classes C"):
        three.select_classes(("C",), manifest)


def test_a_changed_folder_is_read_again(folder: Path, tmp_path: Path) -> None:
    assert len(load_dataset(folder, tmp_path)) == 3
    write_image(
        folder / "deep" / "new.jpg", skimage.data.astronaut()
    )  # `folder` itself is unchanged
    assert len(load_dataset(folder, tmp_path)) == 4
    write_image(folder / "deep" / "cat.png", skimage.data.coffee())
    found = load_dataset(folder, tmp_path)
    replaced = found[found.names.index("deep/cat.png")]
    assert replaced.shape == (200, 300, 3), "the coffee, no longer the cat"
    (folder / "deep" / "rocket.jpg").unlink()
    assert len(load_dataset(folder, tmp_path)) == 3


def test_kaggles_folders_are_found_deeper_and_the_test_part_stays_out(tmp_path: Path) -> None:
    home = tmp_path / "archive"
    write_image(home / "data" / "train_color" / "chelsea.jpg", skimage.data.chelsea())
    write_image(home / "data" / "test_color" / "rocket.jpg", skimage.data.rocket())
    write_image(
        home / "data" / "train_black" / "chelsea.jpg", np.dstack([skimage.data.camera()] * 3)
    )
    assert load_dataset(home, tmp_path).names == ["chelsea.jpg"]
    assert [name for name, _ in files.read_files([home], part="test")] == ["rocket.jpg"]


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    gray = np.dstack([skimage.data.camera()] * 3)
    write_image(tmp_path / "kaggle" / "train_black" / "0.jpg", gray)
    with pytest.raises(InputError, match=r"1 gray.*photographs in colour .*train_color"):
        load_dataset(tmp_path / "kaggle", tmp_path)
    write_image(tmp_path / "kaggle" / "test_color" / "0.jpg", skimage.data.coffee())
    with pytest.raises(InputError, match="has a folder test_color but no train_color"):
        load_dataset(tmp_path / "kaggle", tmp_path)
    (tmp_path / "archive.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"archive\.zip is neither a picture nor a tar; unpack"):
        load_dataset(tmp_path / "archive.zip", tmp_path)
    (tmp_path / "manifest.tsv").write_text("name\tclass\n")
    with pytest.raises(InputError, match="has no column file"):
        create_dataset("a.jpg").select_classes(("A",), tmp_path / "manifest.tsv")


@pytest.mark.parametrize("count", [2, 16, 116])
def test_few_photographs_still_split(count: int) -> None:
    few = create_dataset(*(f"image{number:04}.jpg" for number in range(count)))
    train, validation = few.split(0.03)
    assert sorted(train + validation) == list(range(count))
    assert train
    assert validation
    assert few.split(0.999)[0], "some are left to train on"


def test_too_few_photographs_to_split_are_an_error() -> None:
    with pytest.raises(InputError, match="too few photographs: 1, 0 of them held out"):
        create_dataset("a.jpg").split(0.5)
    with pytest.raises(InputError, match="too few photographs: 2, 2 of them held out"):
        create_dataset("sea_1.jpg", "sea_2.jpg").split(0.5, ("sea",))
    with pytest.raises(InputError, match="the source moon; there are sea, town"):
        create_dataset("sea_1.jpg", "town_2.jpg").split(0.5, ("moon",))


def test_packed_photographs_are_small_spread_over_the_tars_and_keep_their_names(
    folder: Path, tmp_path: Path
) -> None:
    tars, report = pack.pack_photographs(
        [folder], tmp_path / "packed", pieces=2, short_side=64, quality=80
    )
    assert [path.name for path in tars] == ["pack-00.tar", "pack-01.tar"]
    assert sorted(path.name for path in (tmp_path / "packed").iterdir()) == [
        path.name for path in tars
    ]
    assert (report.kept, report.gray) == (3, ["gray.jpg"])
    counts = [len(list(files.read_files([path]))) for path in tars]
    assert counts == [2, 1]
    packed = dataset.load_dataset(tars, cache=tmp_path / "cache")
    original = load_dataset(folder, tmp_path / "cache")
    by_name = {Path(name).stem: original[i] for i, name in enumerate(original.names)}
    for index, name in enumerate(packed.names):
        assert min(packed[index].shape[:2]) == 64
        expected = dataset.shrink(by_name[Path(name).stem], 64)
        assert np.abs(packed[index].astype(int) - expected).mean() < 6


def test_packing_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no usable photographs: 0 photographs kept"):
        pack.pack_photographs(
            [tmp_path / "empty"], tmp_path / "out", pieces=1, short_side=64, quality=80
        )
    with pytest.raises(InputError, match="pieces must be at least 1"):
        pack.pack_photographs(
            [tmp_path / "empty"], tmp_path / "out", pieces=0, short_side=64, quality=80
        )
