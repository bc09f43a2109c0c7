"""What a manifest says of each photograph, small enough for millions of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rehue_serve.batch.manifest import (
    FAILED,
    RETRIED,
    hash_name,
    list_parts,
    read_column,
    read_part,
)

if TYPE_CHECKING:
    import pyarrow as pa


class Index:
    """What a manifest says of each photograph, in 17 bytes of memory for each."""

    def __init__(self, target: str, run: str) -> None:
        """Read the manifest.

        Args:
            run: the current run.
        """
        tables = [
            read_part(target, name, ["key", "fingerprint", "status", "reason", "run"])
            for name in list_parts(target)
        ]
        columns = [_summarize(table, run) for table in tables]
        keys = np.concatenate([c[0] for c in columns] or [np.empty(0, np.uint64)])
        # Of equal keys the first in the reversed order is the last record.
        self._keys, last = np.unique(keys[::-1], return_index=True)
        rows = len(keys) - 1 - last
        versions = [c[1] for c in columns] or [np.empty(0, np.uint64)]
        self._fingerprints = np.concatenate(versions)[rows]
        self._states = np.concatenate([c[2] for c in columns] or [np.empty(0, np.uint8)])[rows]

    def find(self, name: str) -> "Known | None":
        """Return what is known of a photograph, None if it has no record."""
        key = np.uint64(hash_name(name))
        place = int(np.searchsorted(self._keys, key))
        if place == len(self._keys) or self._keys[place] != key:
            return None
        state = int(self._states[place])
        return Known(
            int(self._fingerprints[place]), bool(state & 1), bool(state & 2), bool(state & 4)
        )


@dataclass(frozen=True)
class Known:
    """What is known of a photograph.

    Attributes:
        can_retry: it failed for a reason for which another try can help.
        recent: the record is of the current run.
    """

    fingerprint: int
    done: bool
    can_retry: bool
    recent: bool


def _summarize(
    table: "pa.Table", run: str
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint8]]:
    import pyarrow as pa
    from pyarrow import compute

    bits = (
        compute.not_equal(table["status"], FAILED),
        compute.is_in(table["reason"], pa.array(sorted(RETRIED))),
        compute.equal(table["run"], run),
    )
    states = sum(np.asarray(bit).astype(np.uint8) << place for place, bit in enumerate(bits))
    fingerprints = read_column(table, "fingerprint")
    return read_column(table, "key"), fingerprints, np.asarray(states, np.uint8)
