"""Sources and output files of `rehue colorize`."""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rehue_client.picture import READ_SUFFIXES, SUFFIX_FORMATS, get_suffix_format

OUTPUT_SUFFIXES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "tiff": ".tif"}

# What "-" stands for on the command line.
STDIN = Path("/dev/stdin")
STDOUT = Path("/dev/stdout")

SPECIAL_FILES = (
    (stat.S_ISFIFO, "pipe"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)


@dataclass(frozen=True)
class Job:
    """One photograph and its output file; ``problem`` says why it cannot be done."""

    source: Path
    output: Path
    format: str = "auto"
    problem: str | None = None


class Search:
    """The photographs in files and folders, and what was left out.

    Args:
        out: output folder; for a single photograph also a file name, or `STDOUT`.
        format: image format of the outputs; ``auto``: that of the output's suffix.
        follow_links: search folders that are symbolic links.

    Attributes:
        folder: the output folder, or None if the output is one file.
        left_out: number of files and folders left out, by kind.
    """

    def __init__(self, out: Path, *, format: str = "auto", follow_links: bool = False) -> None:
        self.out = out
        self.format = format
        self.follow_links = follow_links
        self.folder: Path | None = out
        self.left_out: Counter[str] = Counter()

    def list_jobs(self, paths: Sequence[Path]) -> list[Job]:
        """Return one job for each photograph in ``paths``.

        Folders are searched recursively, and their tree is kept below the output
        folder. No output overwrites a source, and no two outputs are the same file.

        Raises:
            ValueError: the output is one file, and either there are several
                photographs, or its suffix disagrees with ``format``; or the output
                folder would have the name of an image file.
        """
        is_single = len(paths) == 1 and not paths[0].is_dir()
        if self.out == STDOUT or (is_single and _is_file_name(self.out)):
            if not is_single:
                raise ValueError("standard output takes a single photograph, not several")
            self.folder = None
            return list(_resolve_conflicts([self._create_single_job(paths[0])]))
        if STDIN in paths:
            raise ValueError("standard input needs a file name or - as the output")
        if _is_file_name(self.out):
            raise ValueError(
                f"{self.out} is the name of one file; several photographs, or a folder, "
                "need a folder as the output"
            )
        jobs = (job for path in paths for job in self._search(path))
        return list(_resolve_conflicts(jobs))

    def _create_single_job(self, source: Path) -> Job:
        expected = get_suffix_format(self.out)
        _check_written(self.out)
        if self.format != "auto" and expected not in (None, self.format):
            raise ValueError(
                f"the suffix of {self.out} stands for {expected}, but the format is {self.format}"
            )
        return Job(source, self.out, expected or self.format)

    def _search(self, path: Path) -> Iterator[Job]:
        if path.is_dir():
            yield from self._search_folder(path, Path(), ())
        else:
            yield self._create_job(path, Path(path.name))

    def _create_job(self, source: Path, relative: Path) -> Job:
        output = self.out / relative
        if self.format == "auto":
            answered = READ_SUFFIXES.get(output.suffix.lower())
            if answered:
                return Job(source, output.with_suffix(OUTPUT_SUFFIXES[answered]), answered)
            return Job(source, output, get_suffix_format(output) or "auto")
        return Job(source, output.with_suffix(OUTPUT_SUFFIXES[self.format]), self.format)

    def _search_folder(
        self, folder: Path, relative: Path, parents: tuple[tuple[int, int], ...]
    ) -> Iterator[Job]:
        """Yield the jobs below a folder. ``parents``: device and inode of those above it."""
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            yield Job(folder, self.out / relative, problem=f"cannot read: {error.strerror}")
            return
        identity = (status.st_dev, status.st_ino)
        if identity in parents:
            self.left_out["linked folder that contains itself"] += 1
            return
        for entry in entries:
            path = folder / entry.name
            if (kind := self._classify(entry, path)) == "folder":
                yield from self._search_folder(
                    path, relative / entry.name, (*parents, identity)
                )  # fmt: skip
            elif kind == "photograph":
                yield self._create_job(path, relative / entry.name)
            elif kind is not None:
                self.left_out[kind] += 1

    def _classify(self, entry: os.DirEntry[str], path: Path) -> str | None:
        """Return ``folder``, ``photograph``, a kind that is left out, or None to ignore it."""
        is_folder = entry.is_dir()
        if is_folder and path.resolve() == self.out.resolve():
            return None  # it may hold the pictures of an earlier run
        if entry.name.startswith("."):
            return "hidden folder" if is_folder else "hidden file"
        if is_folder:
            is_left_out = entry.is_symlink() and not self.follow_links
            return "linked folder (see --follow-links)" if is_left_out else "folder"
        if get_suffix_format(path) is None and path.suffix.lower() not in READ_SUFFIXES:
            return f"{path.suffix.lower()} file" if path.suffix else "file without suffix"
        try:
            mode = entry.stat().st_mode
        except OSError:
            return "broken link"
        return next((kind for matches, kind in SPECIAL_FILES if matches(mode)), "photograph")


def _is_file_name(out: Path) -> bool:
    is_image = get_suffix_format(out) is not None or out.suffix.lower() in READ_SUFFIXES
    return is_image and not out.is_dir()


def _check_written(out: Path) -> None:
    if out.suffix.lower() in READ_SUFFIXES:
        written = ", ".join(sorted(SUFFIX_FORMATS))
        raise ValueError(f"the format of {out} is read, but not written; written are {written}")


def _resolve_conflicts(jobs: Iterable[Job]) -> Iterator[Job]:
    # A photograph that is named twice is colorized once.
    unique: dict[Path, Job] = {}
    for job in jobs:
        unique.setdefault(job.source, job)
    sources = {source.resolve() for source in unique}
    # Pictures that keep their source's name have it before those that change it.
    same_name = {
        job.output.resolve(): job.source
        for job in unique.values()
        if job.output.name == job.source.name
    }
    used: dict[Path, Path] = {}
    for job in unique.values():
        resolved = job.output.resolve()
        other = used.get(resolved) or same_name.get(resolved)
        if other != job.source and _have_same_stem(other, job.source):
            # a.jpg and a.png in one folder, with --format webp: a.webp and a.png.webp
            name = job.source.name + job.output.suffix
            job = replace(job, output=job.output.with_name(name))
            resolved = job.output.resolve()
        if job.problem is None and resolved in sources:
            job = replace(job, problem=f"{job.output} is a source and is never overwritten")
        elif job.problem is None and resolved in used:
            job = replace(job, problem=f"{job.output} is already the output of {used[resolved]}")
        elif job.problem is None:
            used[resolved] = job.source
        yield job


def _have_same_stem(first: Path | None, second: Path) -> bool:
    return first is not None and first.with_suffix("") == second.with_suffix("")
