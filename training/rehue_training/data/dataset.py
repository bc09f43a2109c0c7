"""Photographs for training.

Everything is decoded once into one file of uint8 pixels that is mapped into
memory, so an epoch costs no decoding. Files that cannot be used (corrupt, gray,
too small) are skipped and listed in a report.
"""

import csv
import hashlib
import json
import re
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from rehue_training.data.files import list_files, read_files
from rehue_training.errors import InputError

UInt8 = NDArray[np.uint8]

# Mean difference between the channels, of 255, below which a picture counts as
# gray: JPEG alone leaves up to about 2 in a gray picture saved as colour.
GRAY_SPREAD = 4.0
MIN_SIDE = 32
# Photographs with neighbouring numbers are often frames of one scene or rooms of
# one house: groups of this many stay on the same side of the validation split.
GROUP_SIZE = 20
NO_MANIFEST = "classes: pass the table of the photographs' classes with --manifest"
DECODE_BATCH = 256  # photographs in memory while threads decode them
MAX_LISTED = 20  # sources named in an error
GRAY_HINT = (
    "; training needs photographs in colour (of Kaggle's dataset, pass the folder that holds "
    "train_color)"
)


@dataclass
class Report:
    """How many files were kept, and the names of those that were skipped."""

    kept: int = 0
    corrupt: list[str] = field(default_factory=list)
    gray: list[str] = field(default_factory=list)
    small: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kept} photographs kept; skipped {len(self.corrupt)} corrupt, "
            f"{len(self.gray)} gray, {len(self.small)} under {MIN_SIDE} pixels"
        )


@dataclass(frozen=True)
class Dataset:
    """Decoded photographs, mapped into memory: HWC uint8 sRGB, 0..255."""

    names: list[str]
    shapes: NDArray[np.int64]  # N x (height, width)
    offsets: NDArray[np.int64]  # of each photograph in `pixels`
    pixels: UInt8  # flat
    report: Report

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> UInt8:
        height, width = (int(side) for side in self.shapes[index])
        start = int(self.offsets[index])
        return self.pixels[start : start + height * width * 3].reshape(height, width, 3)

    def select_classes(self, classes: Collection[str], manifest: Path | None) -> "Dataset":
        """Return the photographs whose licence class in a manifest is one of `classes`.

        Args:
            manifest: tab-separated, with the columns `file` (matched by its last part)
                and `class`.

        Raises:
            InputError: there is no manifest, or no photograph is of such a class.
        """
        if manifest is None:
            raise InputError(NO_MANIFEST)
        with manifest.open(newline="") as file:
            rows = csv.DictReader(file, delimiter="\t")
            absent = {"file", "class"} - set(rows.fieldnames or ())
            if absent:
                raise InputError(f"{manifest} has no column {' and no column '.join(absent)}")
            known = {Path(row["file"]).name: row["class"] for row in rows}
        keep = [i for i, name in enumerate(self.names) if known.get(Path(name).name) in classes]
        if not keep:
            raise InputError(f"classes: no photograph is of the classes {', '.join(classes)}")
        names = [self.names[index] for index in keep]
        return replace(self, names=names, shapes=self.shapes[keep], offsets=self.offsets[keep])

    def split(self, share: float, held_out: Collection[str] = ()) -> tuple[list[int], list[int]]:
        """Return the indices to train on and those to validate on.

        All photographs of the sources `held_out` are for validation, and `share` of
        the groups of the other sources. If that left one side empty, as it can with few
        photographs, the nearest group changes sides; a single group is split by photograph.

        Raises:
            InputError: a source of `held_out` has no photograph in this dataset, or too few
                photographs are left to train and validate on.
        """
        return split_names(self.names, share, held_out)


def split_names(
    names: Sequence[str], share: float, held_out: Collection[str] = ()
) -> tuple[list[int], list[int]]:
    """Split photographs with these names as `Dataset.split` does."""
    absent = sorted(set(held_out) - {parse_source(name) for name in names})
    if absent:
        known = ", ".join(sorted({parse_source(name) for name in names})[:MAX_LISTED])
        raise InputError(
            f"held_out: no photographs of the source {', '.join(absent)}; there are {known}"
        )
    held = [i for i, name in enumerate(names) if parse_source(name) in held_out]
    rest = sorted(set(range(len(names))) - set(held))
    others = [names[i] for i in rest]
    selected = _select_for_validation(others, share, at_least_one=not held)
    train = [i for i, validates in zip(rest, selected, strict=True) if not validates]
    validation = sorted(set(held + rest) - set(train))
    if not train or not validation:
        raise InputError(
            f"too few photographs: {len(names)}, {len(held)} of them held out; training and "
            "validation need at least one each"
        )
    return train, validation


def _select_for_validation(
    names: list[str], share: float, *, at_least_one: bool
) -> NDArray[np.bool_]:
    """Return which photographs are for validation, by the hash of their group."""
    if not names:
        return np.zeros(0, np.bool_)
    groups = [parse_group(name) for name in names]
    if len(set(groups)) == 1 and at_least_one:
        groups = names
    fractions = np.array([_hash_to_fraction(group) for group in groups])
    if at_least_one:
        share = max(share, np.nextafter(fractions.min(), 1))
    selected = fractions < share
    return np.asarray(fractions < fractions.max() if selected.all() else selected)


def parse_group(name: str) -> str:
    """Return the group that the split keeps together: `houses_00062.jpg` -> `houses_3`."""
    numbered = re.fullmatch(r"(.*?)(\d+)", Path(name).stem)
    if not numbered:
        return Path(name).stem
    return f"{numbered[1]}{int(numbered[2]) // GROUP_SIZE}"


def parse_source(name: str) -> str:
    """Return the source in a photograph's name: `train/houses_00062.jpg` -> `houses`."""
    return Path(name).stem.split("_")[0].rstrip("0123456789")


def _hash_to_fraction(text: str) -> float:
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def decode(encoded: bytes) -> UInt8 | None:
    """Decode a picture to HWC uint8 sRGB; None if it cannot be read."""
    bgr = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR) if encoded else None
    return None if bgr is None else np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def is_gray(rgb: UInt8) -> bool:
    """Return whether a picture (HWC uint8) has too little colour to learn from."""
    small = cv2.resize(rgb, (64, 64), interpolation=cv2.INTER_AREA).astype(np.int16)
    return float(np.mean(small.max(axis=2) - small.min(axis=2))) < GRAY_SPREAD


def shrink(rgb: UInt8, short_side: int) -> UInt8:
    """Shrink a picture (HWC uint8) to at most `short_side` pixels on its short side."""
    height, width = rgb.shape[:2]
    scale = short_side / min(height, width)
    if scale >= 1:
        return rgb
    size = (round(width * scale), round(height * scale))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def load_dataset(paths: Iterable[Path], *, cache: Path, short_side: int = 200) -> Dataset:
    """Load the usable pictures under `paths`; they are decoded once, into the folder `cache`.

    Raises:
        FileNotFoundError: there is nothing at a path.
        InputError: none of the pictures can be used; or see `read_files`.
    """
    paths = [path.resolve() for path in paths]
    folder = cache / compute_cache_key(paths, short_side)
    if not (folder / "index.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _fill_cache(folder, read_files(paths), short_side)
    return _open_cache(folder)


def compute_cache_key(paths: list[Path], short_side: int) -> str:
    """Return a name for the cache that changes with any file's name, size or time."""
    files = [
        (str(file), file.stat().st_size, file.stat().st_mtime_ns)
        for path in paths
        for _, file in list_files(path, "train")
    ]
    return hashlib.sha256(json.dumps([files, short_side]).encode()).hexdigest()[:16]


def _fill_cache(folder: Path, pictures: Iterable[tuple[str, bytes]], short_side: int) -> None:
    """Write the pixels, then the index by rename, so that a partial cache is never opened."""
    report, names, shapes = Report(), [], []

    def decode_and_shrink(picture: tuple[str, bytes]) -> UInt8 | None:
        rgb = decode_usable(*picture, report)
        return None if rgb is None else shrink(rgb, short_side)

    pictures = iter(pictures)
    with (folder / "pixels.u8").open("wb") as out, ThreadPoolExecutor() as pool:
        while chunk := list(islice(pictures, DECODE_BATCH)):
            for (name, _), rgb in zip(chunk, pool.map(decode_and_shrink, chunk), strict=True):
                if rgb is not None:
                    _append_pixels(out, rgb)
                    names.append(name)
                    shapes.append(rgb.shape[:2])
    report.kept = len(names)
    for skipped in (report.corrupt, report.gray, report.small):
        skipped.sort()  # threads finish in any order
    index = {"names": names, "shapes": shapes, "report": asdict(report)}
    (folder / "index.new").write_text(json.dumps(index))
    (folder / "index.new").replace(folder / "index.json")


def decode_usable(name: str, encoded: bytes, report: Report) -> UInt8 | None:
    """Decode a picture to HWC uint8; if it cannot be used, add it to the report and return None."""
    rgb = decode(encoded)
    if rgb is None:
        report.corrupt.append(name)
    elif min(rgb.shape[:2]) < MIN_SIDE:
        report.small.append(name)
    elif is_gray(rgb):
        report.gray.append(name)
    else:
        return rgb
    return None


def _append_pixels(out: BinaryIO, rgb: UInt8) -> None:
    out.write(np.ascontiguousarray(rgb).data)


def _open_cache(folder: Path) -> Dataset:
    index = json.loads((folder / "index.json").read_text())
    report = Report(**index["report"])
    if not index["names"]:
        raise InputError(f"no usable photographs: {report}{GRAY_HINT if report.gray else ''}")
    shapes = np.array(index["shapes"], np.int64)
    sizes = shapes.prod(axis=1) * 3
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    pixels = np.memmap(folder / "pixels.u8", np.uint8, mode="r")
    return Dataset(index["names"], shapes, offsets, pixels, report)
