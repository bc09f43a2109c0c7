"""Encoded photographs in folders, tars or Kaggle's colorization data."""

import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from rehue_training.errors import InputError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
# Kaggle's Image Colorization Dataset holds each picture twice, gray and in
# colour. Lightness is computed from the colour one, so only that one is read.
KAGGLE = {"train": "train_color", "test": "test_color"}


def read_files(paths: Iterable[Path], *, part: str = "train") -> Iterator[tuple[str, bytes]]:
    """Yield name and encoded bytes of every picture under `paths`, in a fixed order.

    A path is a tar, one picture, or a folder tree of pictures and tars. If the tree holds
    folders in Kaggle's layout, only their `part` ("train" or "test") is read.

    Raises:
        FileNotFoundError: there is nothing at a path.
        InputError: a file is of another kind, or a folder in Kaggle's layout lacks the part.
    """
    for path in paths:
        for name, file in list_files(path, part):
            if _is_tar(file):
                yield from _read_tar(file)
            else:
                yield name, file.read_bytes()


def list_files(path: Path, part: str) -> Iterator[tuple[str, Path]]:
    """Yield the pictures and tars that `read_files` reads, with their names."""
    if path.is_dir():
        for folder in _find_folders(path, part):
            for file in sorted(folder.rglob("*")):
                if file.is_file() and (file.suffix.lower() in SUFFIXES or file.suffix == ".tar"):
                    yield file.relative_to(folder).as_posix(), file
    elif not path.is_file():
        raise FileNotFoundError(f"there is nothing at {path}")
    elif _is_tar(path) or path.suffix.lower() in SUFFIXES:
        yield path.name, path
    else:
        raise InputError(f"{path} is neither a picture nor a tar; unpack it into a folder first")


def _find_folders(folder: Path, part: str) -> list[Path]:
    """Return the folders in Kaggle's layout of that part, or the folder itself without any."""
    roots = {found.parent for name in KAGGLE.values() for found in folder.rglob(name)}
    if not roots:
        return [folder]
    parts = sorted(root / KAGGLE[part] for root in roots if (root / KAGGLE[part]).is_dir())
    if not parts:
        other = next(name for key, name in KAGGLE.items() if key != part)
        raise InputError(f"{folder} has a folder {other} but no {KAGGLE[part]}")
    return parts


def _is_tar(path: Path) -> bool:
    return path.suffix == ".tar" or path.name.endswith(".tar.gz")


def _read_tar(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file and Path(member.name).suffix.lower() in SUFFIXES:
                yield member.name, file.read()
