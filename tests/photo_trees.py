"""Folders of photographs in the layouts that training reads, made of the sample photographs."""

from pathlib import Path

import cv2
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
