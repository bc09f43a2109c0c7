"""Photographs fitted into a square once, and mapped into memory.

Decoding, fitting and simulating film cost more than a small network's training step, so they are
done once a photograph. Each tar (or folder) becomes a folder of its own in the cache, written in
full before it is renamed into place: a build that was killed goes on with those that are missing.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rehue_core import lab
from rehue_core.lab import AB_RANGE
from rehue_training.data import augment, dataset
from rehue_training.data.batches import Batch, ExampleMaker
from rehue_training.data.files import read_files
from rehue_training.errors import InputError

UInt8 = NDArray[np.uint8]
Int8 = NDArray[np.int8]

SIDE = 160  # of the square, pixels
CELL = 4  # pixels to a cell of its colours
CELLS = SIDE // CELL
LIGHTNESS_SCALE = 100 / 255  # L of one count
AT_ONCE = 256  # photographs in memory while threads decode them


@dataclass(frozen=True)
class Square:
    """A whole photograph in a square, which its mirror image fills up."""

    lightness: UInt8  # 2 x SIDE x SIDE, as it is and as on old film; in counts of 100/255
    ab: Int8  # CELLS x CELLS x 2, Lab units


@dataclass(frozen=True)
class Squares:
    """The squares of many photographs, mapped into memory."""

    names: list[str]
    lightness: list[UInt8]  # for each tar, N x 2 x SIDE x SIDE
    ab: list[Int8]  # for each tar, N x CELLS x CELLS x 2
    starts: NDArray[np.int64]  # index of each tar's first photograph

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Square:
        tar = int(np.searchsorted(self.starts, index, side="right")) - 1
        place = index - int(self.starts[tar])
        return Square(self.lightness[tar][place], self.ab[tar][place])


def load_squares(paths: Iterable[Path], *, cache: Path) -> Squares:
    """The usable photographs under `paths`, fitted once into the folder `cache`.

    Raises:
        InputError: there is none.
    """
    names: list[str] = []
    lightness: list[UInt8] = []
    ab: list[Int8] = []
    starts = []
    for path in paths:
        home = _fit_once(path.resolve(), cache)
        found = json.loads((home / "index.json").read_text())["names"]
        if found:
            starts.append(len(names))
            names += found
            lightness.append(
                _open_array(home / "lightness.u8", (len(found), 2, SIDE, SIDE), np.uint8)
            )
            ab.append(_open_array(home / "ab.i8", (len(found), CELLS, CELLS, 2), np.int8))
    if not names:
        raise InputError("no usable photographs")
    return Squares(names, lightness, ab, np.array(starts, np.int64))


def _open_array(path: Path, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    return np.memmap(path, dtype, mode="r", shape=shape)


def _fit_once(path: Path, cache: Path) -> Path:
    if path.is_dir():
        key = dataset.compute_cache_key([path], SIDE)
    else:
        key = hashlib.sha256(f"{path} {path.stat().st_size} {SIDE}".encode()).hexdigest()[:8]
    home = cache / f"{path.stem}-{key}"
    if not home.is_dir():
        fresh = home.with_suffix(".new")
        fresh.mkdir(parents=True, exist_ok=True)
        _write_squares(fresh, read_files([path]))
        fresh.replace(home)
    return home


def _write_squares(home: Path, pictures: Iterator[tuple[str, bytes]]) -> None:
    report, names = dataset.Report(), []
    with (
        (home / "lightness.u8").open("wb") as lightness,
        (home / "ab.i8").open("wb") as colours,
        ThreadPoolExecutor() as pool,
    ):
        while some := list(islice(pictures, AT_ONCE)):
            squares = pool.map(partial(_decode_square, report=report), some)
            for (name, _), square in zip(some, squares, strict=True):
                if square is not None:
                    lightness.write(square.lightness.tobytes())
                    colours.write(square.ab.tobytes())
                    names.append(name)
    report.kept = len(names)
    (home / "index.json").write_text(json.dumps({"names": names, "report": asdict(report)}))


def _decode_square(picture: tuple[str, bytes], report: dataset.Report) -> Square | None:
    name, encoded = picture
    rgb = dataset.decode_usable(name, encoded, report)
    return None if rgb is None else fit_square(rgb, name)


def fit_square(rgb: UInt8, name: str) -> Square:
    """The square of a photograph (HWC uint8); its name decides what the film is like."""
    whole = ExampleMaker(SIDE, CELLS, (1.0, 1.0), 0.0).fit_whole(rgb)
    rng = np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))
    planes = lab.compute_lightness(whole), augment.simulate_film(whole, rng)
    full = cv2.cvtColor(whole.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB)
    cells = cv2.resize(full[..., 1:], (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    counts = np.rint(np.stack(planes) / LIGHTNESS_SCALE)
    return Square(counts.astype(np.uint8), np.clip(np.rint(cells), -127, 127).astype(np.int8))


@dataclass(frozen=True)
class SquareMaker(ExampleMaker):
    """An `ExampleMaker` for squares: the whole square, or a window of it, at `input_size`."""

    scan_probability: float = 0.0  # of showing another scan of the photograph

    def make_example(self, square: Any, rng: np.random.Generator) -> Batch:
        """L (HW1 float32, 0..100) and ab over 128 (hw2 float32)."""
        lightness, ab = square.lightness[int(rng.random() < self.film_probability)], square.ab
        if self.scan_probability and rng.random() < self.scan_probability:
            lightness, ab = augment.rescan(lightness, ab, rng)
        whole = rng.random() < self.whole_probability
        cells = CELLS if whole else round(CELLS * rng.uniform(*self.crop_range))
        top, left = (int(rng.integers(CELLS - cells + 1)) for _ in range(2))
        light, target = self._cut_window(lightness, ab, (top, left, cells))
        step = -1 if rng.random() < 0.5 else 1
        return light[:, ::step], target[:, ::step]

    def make_center_example(self, square: Any) -> Batch:
        """The same of the whole square, unchanged: to validate."""
        return self._cut_window(square.lightness[0], square.ab, (0, 0, CELLS))

    def _cut_window(self, lightness: UInt8, ab: Int8, window: tuple[int, int, int]) -> Batch:
        """A window (top, left and side in cells) as the network's input and its target."""
        top, left, cells = window
        rows, columns = (slice(first * CELL, (first + cells) * CELL) for first in (top, left))
        pixels = _shrink(lightness[rows, columns], self.input_size).astype(np.float32)
        colours = ab[top : top + cells, left : left + cells].astype(np.float32)
        target = _shrink(colours, self.target_size)
        return pixels[..., None] * np.float32(LIGHTNESS_SCALE), target / np.float32(AB_RANGE)


def _shrink(plane: NDArray[Any], side: int) -> NDArray[Any]:
    return np.asarray(cv2.resize(plane, (side, side), interpolation=cv2.INTER_AREA))
