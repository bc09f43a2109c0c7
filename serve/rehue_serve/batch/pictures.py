"""Pictures that the manifest knows: whether they are still there, and whole."""

import hashlib
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rehue_serve.batch.manifest import (
    DONE,
    FAILED,
    PICTURE_CHANGED,
    PICTURE_MISSING,
    Record,
    Writer,
    hash_name,
    read_records,
)
from rehue_serve.batch.options import Options
from rehue_serve.batch.progress import LINE_INTERVAL
from rehue_serve.batch.sources import split_into_lists
from rehue_serve.batch.stores import get_store, is_local, join_location

READERS = 32  # pictures that are checked at a time


class Pictures:
    """The pictures of a target.

    An object store is listed, once and only when it is asked for, in 8 bytes of memory for each:
    a request for every single one would take longer.
    """

    def __init__(self, target: str) -> None:
        self._target = target

    def __contains__(self, output: str) -> bool:
        if is_local(self._target):
            return Path(join_location(self._target, output)).exists()
        key = np.uint64(hash_name(output))
        place = int(np.searchsorted(self._keys, key))
        return place < len(self._keys) and bool(self._keys[place] == key)

    @cached_property
    def _keys(self) -> NDArray[np.uint64]:
        files = get_store(self._target).list_files(self._target)
        return np.sort(np.fromiter((hash_name(file.name) for file in files), np.uint64))


@dataclass
class Verification:
    """The outcome of a check."""

    checked: int = 0
    missing: int = 0
    changed: int = 0

    def describe(self) -> str:
        return (
            f"{self.checked:,} pictures checked: {self.missing:,} missing, "
            f"{self.changed:,} not as they were written"
        )


def verify_pictures(options: Options) -> Verification:
    """Read all pictures, and record those that are missing or changed as failures.

    Raises:
        OSError: a picture or the manifest cannot be read.
    """
    found, shown = Verification(), time.monotonic()
    writer = Writer(options.target, options.run)
    done = (record for record in read_records(options.target) if record.status == DONE)
    with ThreadPoolExecutor(READERS) as pool:
        for records in split_into_lists(done, 8 * READERS):
            for record in _find_lost(options.target, records, pool):
                found.missing += record.reason == PICTURE_MISSING
                found.changed += record.reason == PICTURE_CHANGED
                writer.add(record)
            found.checked += len(records)
            if time.monotonic() - shown >= LINE_INTERVAL:
                print(found.describe(), file=sys.stderr, flush=True)
                shown = time.monotonic()
    writer.flush()
    return found


def _find_lost(target: str, records: list[Record], pool: ThreadPoolExecutor) -> Iterator[Record]:
    def check(record: Record) -> str:
        location = join_location(target, record.output)
        try:
            data = get_store(location).read(location)
        except FileNotFoundError:
            return PICTURE_MISSING
        same = hashlib.sha256(data).hexdigest() == record.output_sha256
        return "" if same else PICTURE_CHANGED

    for record, reason in zip(records, pool.map(check, records), strict=True):
        if reason:
            message = "found by --verify"
            yield replace(record, status=FAILED, reason=reason, message=message)
