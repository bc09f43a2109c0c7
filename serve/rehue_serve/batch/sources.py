"""The photographs of a job: what SOURCE names, and the output of each."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import PurePosixPath
from typing import TypeVar
from urllib.parse import urlsplit

from rehue_client.outputs import OUTPUT_SUFFIXES
from rehue_client.picture import READ_SUFFIXES, SUFFIX_FORMATS
from rehue_serve.batch.stores import (
    StoredFile,
    StoreError,
    clean_location,
    describe_os_error,
    get_store,
    is_local,
    join_location,
)

T = TypeVar("T")

LISTS = (".txt", ".csv", ".parquet")
COLUMNS = ("source", "path", "url", "location", "file")  # one of them names the photograph
NAME_COLLISION = "NAME_COLLISION"  # reason of a failure
WILDCARDS = re.compile(r"[*?\[]")
ROWS = 4096  # of a Parquet file that are in memory at a time
LOOK_UPS = 32  # photographs of a list that are looked up at a time


@dataclass(frozen=True)
class Photograph:
    """One photograph of a job.

    Attributes:
        location: path or URL that is read.
        name: relative to the source; the photograph's name in the manifest.
        output: name of its picture, relative to the target.
        size: bytes; -1 where the list does not say.
        version: of its content, see `StoredFile`; empty where the list does not say.
        problem: why it cannot be done; empty if it can.
        reason: the problem's reason, see `rehue_serve.batch.manifest.Record`.
    """

    location: str
    name: str
    output: str
    size: int = -1
    version: str = ""
    problem: str = ""
    reason: str = ""

    def with_problem(self, reason: str, problem: str) -> "Photograph":
        return replace(self, reason=reason, problem=problem)


@dataclass
class Source:
    """What the command's SOURCE names: a folder, a pattern, or a list of photographs.

    Attributes:
        root: folder or prefix below which the photographs are, or the list's own location.
        pattern: of the names below the root, with ``*``, ``?``, ``[..]`` and ``**``.
        format: image format of the pictures; ``auto``: by each photograph's suffix.
        left_out: files that are not photographs, by suffix, of the last listing that ended.
    """

    root: str
    pattern: str = ""
    format: str = "auto"
    left_out: Counter[str] = field(default_factory=Counter)

    @classmethod
    def parse(cls, text: str, *, format: str = "auto") -> "Source":
        match = WILDCARDS.search(text)
        if match is None:
            return cls(clean_location(text), format=format)
        root, _, _ = text[: match.start()].rpartition("/")
        root = root or ("/" if text.startswith("/") else ".")
        pattern = text.removeprefix(root).lstrip("/")
        return cls(clean_location(root), pattern, format)

    def describe(self) -> str:
        """Return the source as the user wrote it, made absolute."""
        return join_location(self.root, self.pattern) if self.pattern else self.root

    @property
    def is_list(self) -> bool:
        return not self.pattern and PurePosixPath(self.root).suffix.lower() in LISTS

    def list_photographs(self) -> Iterator[Photograph]:
        """Yield all photographs, always in the same order; at most one folder is in memory.

        Raises:
            OSError: the source cannot be listed.
        """
        found = self._read_list() if self.is_list else self._search()
        yield from mark_collisions(found, in_order=not self.is_list)

    def _search(self) -> Iterator[Photograph]:
        from fsspec.utils import glob_translate

        matches = re.compile(glob_translate(self.pattern or "**")).match
        left_out: Counter[str] = Counter()
        for file in get_store(self.root).list_files(self.root):
            if file.problem:
                folder = Photograph(join_location(self.root, file.name), file.name, "")
                yield folder.with_problem("UNREADABLE", file.problem)
            elif not is_photograph(file.name):
                left_out[PurePosixPath(file.name).suffix.lower() or "no suffix"] += 1
            elif matches(file.name):
                yield self._create_photograph(join_location(self.root, file.name), file)
        self.left_out = left_out

    def _create_photograph(self, location: str, file: StoredFile) -> Photograph:
        output = choose_output(file.name, self.format)
        return Photograph(location, file.name, output, file.size, file.version)

    def _read_list(self) -> Iterator[Photograph]:
        base = self.root.rpartition("/")[0]
        with ThreadPoolExecutor(LOOK_UPS) as pool:
            for lines in split_into_lists(_read_lines(self.root), 4 * LOOK_UPS):
                listed = [self._create_listed(base, line) for line in lines]
                yield from pool.map(_look_up, listed)

    def _create_listed(self, base: str, line: str) -> Photograph:
        is_relative = is_local(line) and not line.startswith("/")
        location = clean_location(join_location(base, line) if is_relative else line)
        name = line if is_relative else _name_location(location)
        photograph = Photograph(location, name, "")
        if ".." in PurePosixPath(name).parts:
            return photograph.with_problem("UNREADABLE", "a relative name must not contain ..")
        if not is_photograph(name):
            return photograph.with_problem("UNSUPPORTED_IMAGE", "its suffix is not a photograph's")
        return replace(photograph, output=choose_output(name, self.format))


def split_into_lists(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of this size, the last one shorter."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


def _look_up(photograph: Photograph) -> Photograph:
    """Add size and version, which a list does not say."""
    if photograph.problem:
        return photograph
    try:
        file = get_store(photograph.location).describe(photograph.location)
    except OSError as error:
        return photograph.with_problem("UNREADABLE", describe_os_error(error))
    return replace(photograph, size=file.size, version=file.version)


def is_photograph(name: str) -> bool:
    """Whether a file's suffix is that of a format that is read."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix in SUFFIX_FORMATS or suffix in READ_SUFFIXES


def choose_output(name: str, format: str) -> str:
    """Choose the name of a picture: its photograph's, with the suffix of the picture's format."""
    path = PurePosixPath(name)
    suffix = path.suffix.lower()
    if format == "auto":
        answered = READ_SUFFIXES.get(suffix)
        return str(path.with_suffix(OUTPUT_SUFFIXES[answered])) if answered else name
    if SUFFIX_FORMATS.get(suffix) == format:
        return name
    return str(path.with_suffix(OUTPUT_SUFFIXES[format]))


def choose_format(output: str) -> str:
    """Return the image format that an output's suffix stands for."""
    return SUFFIX_FORMATS[PurePosixPath(output).suffix.lower()]


def mark_collisions(photographs: Iterable[Photograph], *, in_order: bool) -> Iterator[Photograph]:
    """Mark photographs whose picture would overwrite another's.

    Args:
        in_order: names with the same beginning follow each other. Then little is remembered:
            two outputs are the same only if folder and stem of their photographs are.
    """
    used: dict[str, str] = {}
    for photograph in photographs:
        if in_order:
            used = {
                output: name
                for output, name in used.items()
                if photograph.name.startswith(f"{name.rpartition('.')[0]}.")
            }
        other = used.get(photograph.output)
        if photograph.problem or other == photograph.name:  # a list may name it twice
            yield photograph
        elif other is not None:
            problem = f"{photograph.output} is the output of {other} too"
            yield photograph.with_problem(NAME_COLLISION, problem)
        else:
            used[photograph.output] = photograph.name
            yield photograph


def _read_lines(location: str) -> Iterator[str]:
    """Yield the names in a list: a text file's lines, or a column of a CSV or Parquet file."""
    data = get_store(location).read(location)
    suffix = PurePosixPath(location).suffix.lower()
    if suffix == ".parquet":
        yield from _read_parquet(location, data)
    elif suffix == ".csv":
        rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig")))
        column = _choose_column(location, rows.fieldnames or [])
        yield from (row[column] for row in rows if row[column])
    else:
        lines = data.decode("utf-8-sig", "surrogateescape").splitlines()
        yield from (line for line in lines if line and not line.startswith("#"))


def _read_parquet(location: str, data: bytes) -> Iterator[str]:
    from pyarrow import ArrowInvalid, parquet

    try:
        file = parquet.ParquetFile(io.BytesIO(data))
    except ArrowInvalid as error:
        raise StoreError(f"{location} is not a Parquet file: {error}") from None
    column = _choose_column(location, file.schema_arrow.names)
    for rows in file.iter_batches(ROWS, columns=[column]):
        yield from (str(value) for value in rows.column(0).to_pylist() if value)


def _choose_column(location: str, names: Iterable[str]) -> str:
    column = next((name for name in names if name.lower() in COLUMNS), None)
    if column is None:
        raise StoreError(f"{location} needs a column named {', '.join(COLUMNS[:-1])} or file.")
    return column


def _name_location(location: str) -> str:
    """Name a photograph of a list by its whole location: ``bucket/folder/a.jpg``."""
    parts = urlsplit(location)
    return f"{parts.netloc}{parts.path}".lstrip("/")
