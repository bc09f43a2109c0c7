"""Figures of a job for its report, read from the manifest part by part."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehue_serve.batch.manifest import DONE, FAILED, Record, choose_last, list_parts, read_part

BINS = 120  # of the chart
MOST_FAILURES = 1000  # listed in the report; the manifest has all
COLUMNS = [
    "source", "output", "status", "reason", "message", "source_bytes", "output_bytes", "ms",
    "finished", "run", "model", "parameters",
]  # fmt: skip


@dataclass
class Figures:
    """What the manifest says of all photographs.

    Attributes:
        failures: by reason.
        failed: records of failed photographs, MOST_FAILURES at most.
        sample: records of done photographs, spread evenly.
        finished: when photographs of the last run ended, in seconds since 1970.
        busy_seconds: from the first to the last photograph of each run, summed.
    """

    done: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    failed: list[Record] = field(default_factory=list)
    sample: list[Record] = field(default_factory=list)
    finished: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    source_bytes: int = 0
    output_bytes: int = 0
    busy_seconds: float = 0.0
    models: Counter[str] = field(default_factory=Counter)
    parameters: Counter[str] = field(default_factory=Counter)

    def count_by_time(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return bins of the last run: seconds since its first photograph, photographs/s."""
        if len(self.finished) < 2:
            return np.empty(0), np.empty(0)
        seconds = self.finished - self.finished.min()
        counts, edges = np.histogram(seconds, bins=min(BINS, max(1, len(seconds) // 4)))
        width = max(edges[1] - edges[0], 0.001)
        return edges[:-1], counts / width


def collect_figures(target: str, run: str, sample: int) -> Figures:
    """Read a manifest.

    Args:
        run: the last run.
        sample: photographs to choose for the contact sheet.
    """
    figures = Figures()
    parts = list_parts(target)
    finished: list[NDArray[np.float64]] = []
    runs: dict[str, tuple[float, float]] = {}
    for name, rows in zip(parts, choose_last(target, parts), strict=True):
        table = read_part(target, name, COLUMNS).take(rows)
        times = np.asarray(table["finished"].cast("int64").to_numpy(), np.float64) / 1000
        _add_times(runs, table["run"].to_numpy(zero_copy_only=False), times)
        finished.append(times[np.asarray(table["run"]) == run])
        _add_counts(figures, table)
        figures.sample = _choose_evenly(
            figures.sample + _choose_records(table, DONE, sample), sample
        )
        room = MOST_FAILURES - len(figures.failed)
        figures.failed += _choose_records(table, FAILED, room) if room else []
    figures.finished = np.concatenate(finished or [np.empty(0)])
    figures.busy_seconds = sum(last - first for first, last in runs.values())
    return figures


def _add_times(
    runs: dict[str, tuple[float, float]], names: NDArray[Any], times: NDArray[np.float64]
) -> None:
    for name in np.unique(names):
        own = times[names == name]
        first, last = runs.get(name, (np.inf, -np.inf))
        runs[name] = (min(first, float(own.min())), max(last, float(own.max())))


def _add_counts(figures: Figures, table: Any) -> None:
    from pyarrow import compute

    failed = compute.equal(table["status"], FAILED)
    figures.done += len(table) - int(compute.sum(failed).as_py() or 0)
    figures.failures.update(table.filter(failed)["reason"].to_pylist())
    done = table.filter(compute.equal(table["status"], DONE))
    figures.source_bytes += int(compute.sum(done["source_bytes"]).as_py() or 0)
    figures.output_bytes += int(compute.sum(done["output_bytes"]).as_py() or 0)
    for name in ("model", "parameters"):
        counts = {item["values"]: item["counts"] for item in done[name].value_counts().to_pylist()}
        getattr(figures, f"{name.rstrip('s')}s").update(counts)


def _choose_records(table: Any, status: str, most: int) -> list[Record]:
    from pyarrow import compute

    rows = np.flatnonzero(np.asarray(compute.equal(table["status"], status)))
    places = np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)
    return [Record(**record) for record in table.take(rows[places]).to_pylist()]


def _choose_evenly(records: list[Record], most: int) -> list[Record]:
    places = np.linspace(0, len(records) - 1, min(most, len(records))).astype(int)
    return [records[place] for place in places]
