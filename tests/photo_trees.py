"""Folders of photographs in the layouts that training reads, made of the sample photographs."""

import itertools
from pathlib import Path

import cv2
import skimage.data
from paths import PHOTOS


def write_kaggle_tree(home: Path, count: int, *, side: int = 64, test: int = 4) -> Path:
    """Write `count` training and `test` test photographs in Kaggle's four folders.

    Args:
        side: pixels; the photographs are square.
    """
    photos = [cv2.imread(str(path)) for path in sorted(PHOTOS.glob("*.jpg"))]
    margin = side // 2
    for number in range(count + test):
        photo = cv2.resize(photos[number % len(photos)], (side + margin, side + margin))
        top, left = number % margin, number * 7 % margin
        crop = photo[top : top + side, left : left + side]
        part = "train" if number < count else "test"
        for folder, picture in (
            (f"{part}_color", crop),
            (f"{part}_black", cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)),
        ):
            (home / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(home / folder / f"image{number:04}.jpg"), picture)
    return home


def write_pieces(folder: Path) -> Path:
    """Write twelve photographs, pieces of skimage's, into a folder; return it."""
    for name in ("chelsea", "coffee", "astronaut"):
        bgr = cv2.cvtColor(getattr(skimage.data, name)(), cv2.COLOR_RGB2BGR)
        for i, (down, across) in enumerate(itertools.product((0, 100), (0, 100))):
            piece = bgr[down : down + 200, across : across + 240]
            cv2.imwrite(str(folder / f"{name}{'abcd'[i]}.png"), piece)
    return folder
