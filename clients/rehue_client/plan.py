"""Which photographs become which files."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Names of files in folders that are photographs; a file named outright always is.
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"})

OUTPUT_SUFFIX = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "tiff": ".tif"}


@dataclass(frozen=True)
class Step:
    """One photograph and where its picture goes, or why it cannot go there."""

    source: Path
    output: Path
    problem: str | None = None


def plan(paths: Iterable[Path], out: Path, *, format: str = "auto") -> list[Step]:
    """One step for every photograph that ``paths`` name or hold.

    Folders are searched to their depths and keep their tree below ``out``. One
    file may be given a file's name: an ``out`` with a photograph's suffix.
    Nothing is ever written over a source, nor two pictures to one file.
    """
    paths = list(paths)
    if len(paths) == 1 and not paths[0].is_dir() and _names_file(out):
        pairs = [(paths[0], out)]
    else:
        pairs = [
            (source, _renamed(out / relative, format))
            for path in paths
            for source, relative in _photographs(path, out)
        ]
    return list(_checked(pairs))


def _names_file(out: Path) -> bool:
    return out.suffix.lower() in SUFFIXES and not out.is_dir()


def _photographs(path: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    """Sources and their places below the output folder."""
    if not path.is_dir():
        yield path, Path(path.name)
        return
    for folder, folders, names in os.walk(path):
        here = Path(folder)
        # What an earlier run wrote is no source, nor is what is hidden.
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (here / name).resolve() != out.resolve()
        )
        for name in sorted(names):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield here / name, (here / name).relative_to(path)


def _renamed(output: Path, format: str) -> Path:
    return output if format == "auto" else output.with_suffix(OUTPUT_SUFFIX[format])


def _checked(pairs: Iterable[tuple[Path, Path]]) -> Iterator[Step]:
    # A photograph that is named twice is colorized once.
    places: dict[Path, Path] = {}
    for source, output in pairs:
        places.setdefault(source, output)
    sources = {source.resolve() for source in places}
    taken: dict[Path, Path] = {}
    for source, output in places.items():
        place = output.resolve()
        if place in sources:
            problem = f"{output} is a source and is never written over"
        elif place in taken:
            problem = f"{output} is already the place of {taken[place]}"
        else:
            problem = None
            taken[place] = source
        yield Step(source, output, problem)
