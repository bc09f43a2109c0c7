"""The manifest: a record of every photograph of a target, in Parquet files beside the pictures.

Each record is written once, in a new part: a file that appears whole or not at all. Of several
records of a photograph the last one counts. Parts are merged now and then, and at the end.
"""

import io
import json
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rehue_serve.batch.sources import Photograph
from rehue_serve.batch.stores import FOLDER, get_store, join_location
from rehue_serve.parameters import ColorizeParameters

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = f"{FOLDER}/manifest"
MOST_PARTS = 128  # of one run before they are merged
LARGEST_PART = 200_000  # records; about 80 MB of memory while they are merged
DONE, FAILED = "done", "failed"
SKIPPED = "skipped"  # the picture was there before, see `Options.skip_existing`

# Reasons of `rehue batch --verify`: the picture was deleted; its hash is not the record's.
PICTURE_MISSING, PICTURE_CHANGED = "PICTURE_MISSING", "PICTURE_CHANGED"

# Failures for which another try can help.
RETRIED = frozenset(
    {"OVERLOADED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNREADABLE", "UNWRITABLE",
     PICTURE_MISSING, PICTURE_CHANGED}
)  # fmt: skip


@dataclass(frozen=True)
class Record:
    """What happened to one photograph.

    Attributes:
        reason: of a failure: an error reason of the API, UNREADABLE, UNWRITABLE,
            NAME_COLLISION, CRASHED, PICTURE_MISSING or PICTURE_CHANGED.
        key, fingerprint: digests, see `hash_name` and `hash_version`.
        model: name and version.
        parameters: JSON.
        ms: from the start of reading to the end of writing.
        finished: milliseconds since 1970, UTC.
        run: when the run began, and a random part.
    """

    source: str
    output: str
    status: str
    reason: str = ""
    message: str = ""
    source_bytes: int = -1
    source_version: str = ""
    source_sha256: str = ""
    output_bytes: int = -1
    output_sha256: str = ""
    model: str = ""
    parameters: str = ""
    pages: int = 0
    ms: float = 0.0
    finished: int = 0
    run: str = ""
    key: int = 0
    fingerprint: int = 0

    @property
    def failed(self) -> bool:
        return self.status == FAILED


@dataclass(frozen=True)
class Recipe:
    """What pictures depend on besides their photographs."""

    model: str  # name and version
    parameters: str  # JSON, those with their default values too
    chosen: str  # JSON, without the defaults: a new version's new parameter changes no picture

    @classmethod
    def build(cls, model: str, parameters: dict[str, Any]) -> "Recipe":
        chosen = ColorizeParameters(**parameters).model_dump(exclude_defaults=True)
        return cls(model, *(json.dumps(each, sort_keys=True) for each in (parameters, chosen)))


def hash_name(name: str) -> int:
    """Hash a photograph's name to 64 bits, without a sign."""
    return _hash(name)


def hash_version(photograph: Photograph, recipe: Recipe) -> int:
    """Hash everything that a picture depends on to 64 bits, without a sign."""
    content = f"{photograph.size} {photograph.version}"
    return _hash("\0".join([content, photograph.output, recipe.model, recipe.chosen]))


def _hash(text: str) -> int:
    digest = blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def create_run_name() -> str:
    """Name a run; later runs have later names."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{secrets.token_hex(4)}"


@dataclass
class Writer:
    """Appends records to the manifest of a target. Used by one process at a time."""

    target: str
    run: str
    _records: list[Record] = field(default_factory=list)
    _parts: int = 0
    _own: list[str] = field(default_factory=list)  # parts of this run that are not merged

    def add(self, record: Record) -> None:
        self._records.append(record)

    @property
    def pending(self) -> int:
        """How many records wait to be written."""
        return len(self._records)

    def flush(self) -> None:
        """Write a part with the records that were added since the last one.

        Raises:
            OSError: it cannot be written; the records are kept.
        """
        if not self._records:
            return
        self._own.append(self._write(_encode(self._records)))
        self._records = []
        if len(self._own) >= MOST_PARTS:
            self._merge(self._own)

    def compact(self) -> None:
        """Merge all parts of all runs into one, with one record for each photograph."""
        self.flush()
        parts = list_parts(self.target)
        if len(parts) > 1:
            self._merge(parts)

    def _merge(self, parts: list[str]) -> None:
        # The merged part comes first: a kill in between leaves records twice, never none.
        for data in merge_parts(self.target, parts):
            self._write(data)
        for name in parts:
            get_store(self.target).delete(join_location(self.target, name))
        self._own = []

    def _write(self, data: bytes) -> str:
        self._parts += 1
        name = f"{MANIFEST}/{self.run}-{self._parts:08}.parquet"
        get_store(self.target).write(join_location(self.target, name), data, self.target)
        return name


def list_parts(target: str) -> list[str]:
    """Return the names of a manifest's parts, the oldest first."""
    try:
        files = list(get_store(target).list_files(join_location(target, MANIFEST)))
    except FileNotFoundError:
        return []
    return sorted(f"{MANIFEST}/{file.name}" for file in files if file.name.endswith(".parquet"))


def read_part(target: str, name: str, columns: list[str] | None = None) -> "pa.Table":
    """Read one part of a manifest, or some columns of it."""
    from pyarrow import parquet

    data = get_store(target).read(join_location(target, name))
    return parquet.read_table(io.BytesIO(data), columns=columns)


def read_records(target: str) -> Iterator[Record]:
    """Yield the last record of each photograph, part by part."""
    parts = list_parts(target)
    for name, rows in zip(parts, choose_last(target, parts), strict=True):
        for record in read_part(target, name).take(rows).to_pylist():
            yield Record(**record)


def merge_parts(target: str, parts: list[str]) -> Iterator[bytes]:
    """Yield Parquet files with the last record of each photograph in these parts."""
    import pyarrow as pa

    tables: list[pa.Table] = []
    for name, rows in zip(parts, choose_last(target, parts), strict=True):
        tables.append(read_part(target, name).take(rows))
        if sum(map(len, tables)) >= LARGEST_PART:
            yield _write_table(pa.concat_tables(tables))
            tables = []
    if tables:
        yield _write_table(pa.concat_tables(tables))


def choose_last(target: str, parts: list[str]) -> list[NDArray[np.int64]]:
    """Return for each part the rows whose photographs have no later record."""
    keys = [read_column(read_part(target, name, ["key"]), "key") for name in parts]
    seen = np.empty(0, np.uint64)
    chosen = []
    for own in reversed(keys):
        _, last = np.unique(own[::-1], return_index=True)
        rows = np.sort(len(own) - 1 - last)
        rows = rows[~np.isin(own[rows], seen)]
        seen = np.union1d(seen, own[rows])
        chosen.append(rows.astype(np.int64))
    return chosen[::-1]


def _encode(records: Iterable[Record]) -> bytes:
    import pyarrow as pa

    rows = [
        {name: _replace_invalid_text(value) for name, value in asdict(r).items()} for r in records
    ]
    return _write_table(pa.Table.from_pylist(rows, get_schema()))


def _write_table(table: "pa.Table") -> bytes:
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _replace_invalid_text(value: Any) -> Any:
    """Replace what is not Unicode in file names; Parquet's text is UTF-8."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def get_schema() -> "pa.Schema":
    """Return the schema of the manifest, which is that of `Record`."""
    import pyarrow as pa

    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    unsigned = {"key": pa.uint64(), "fingerprint": pa.uint64()}
    fields = Record.__dataclass_fields__.values()
    schema = {f.name: unsigned.get(f.name) or types[f.type] for f in fields}  # type: ignore[index]
    return pa.schema(list((schema | {"finished": pa.timestamp("ms", "UTC")}).items()))


def read_column(table: "pa.Table", name: str) -> NDArray[np.uint64]:
    """Return a column of hashes."""
    return np.asarray(table[name].to_numpy(), dtype=np.uint64)
