"""Sources and output files of `rehue colorize`."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Files in folders are photographs if they have one of these suffixes. A file that is
# named on the command line is always taken.
PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"})

OUTPUT_SUFFIXES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "tiff": ".tif"}


@dataclass(frozen=True)
class Job:
    """One photograph and its output file; ``problem`` says why it cannot be done."""

    source: Path
    output: Path
    problem: str | None = None


def list_jobs(paths: Iterable[Path], out: Path, *, format: str = "auto") -> list[Job]:
    """Return one job for each photograph in ``paths``.

    Folders are searched recursively, and their tree is kept below ``out``. For a
    single file, ``out`` may be a file name: one with the suffix of a photograph.
    No output overwrites a source, and no two outputs are the same file.
    """
    paths = list(paths)
    if len(paths) == 1 and not paths[0].is_dir() and _is_file_name(out):
        pairs = [(paths[0], out)]
    else:
        pairs = [
            (source, _change_suffix(out / relative, format))
            for path in paths
            for source, relative in _find_photos(path, out)
        ]
    return list(_find_conflicts(pairs))


def _is_file_name(out: Path) -> bool:
    return out.suffix.lower() in PHOTO_SUFFIXES and not out.is_dir()


def _find_photos(path: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each source with its path relative to the output folder."""
    if not path.is_dir():
        yield path, Path(path.name)
        return
    for folder_name, subfolders, names in os.walk(path):
        folder = Path(folder_name)
        # Skip hidden folders and the output folder, which may hold an earlier run's pictures.
        subfolders[:] = sorted(
            name
            for name in subfolders
            if not name.startswith(".") and (folder / name).resolve() != out.resolve()
        )
        for name in sorted(names):
            if Path(name).suffix.lower() in PHOTO_SUFFIXES and not name.startswith("."):
                yield folder / name, (folder / name).relative_to(path)


def _change_suffix(output: Path, format: str) -> Path:
    return output if format == "auto" else output.with_suffix(OUTPUT_SUFFIXES[format])


def _find_conflicts(pairs: Iterable[tuple[Path, Path]]) -> Iterator[Job]:
    # A photograph that is named twice is colorized once.
    outputs: dict[Path, Path] = {}
    for source, output in pairs:
        outputs.setdefault(source, output)
    sources = {source.resolve() for source in outputs}
    used: dict[Path, Path] = {}
    for source, output in outputs.items():
        resolved = output.resolve()
        if resolved in sources:
            problem = f"{output} is a source and is never overwritten"
        elif resolved in used:
            problem = f"{output} is already the output of {used[resolved]}"
        else:
            problem = None
            used[resolved] = source
        yield Job(source, output, problem)
