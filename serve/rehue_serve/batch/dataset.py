"""The job as a Ray dataset: a listing that streams into a pool of workers.

Ray Data gives back-pressure, restarts workers that die, and repeats their windows.
"""

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rehue_serve.batch.colorizer import BatchColorizer
from rehue_serve.batch.manifest import Recipe, Record
from rehue_serve.batch.options import Limits, Options
from rehue_serve.batch.pending import list_windows

if TYPE_CHECKING:
    import pyarrow as pa

LARGEST_WINDOW = 16  # photographs; a window costs Ray about 8 ms of CPU
WINDOWS = 4  # in one worker at a time, so that it never waits for the slowest of one window


@dataclass(frozen=True)
class Outcome:
    """The outcome of one window.

    Attributes:
        stopped: why the job cannot go on; empty if it can.
    """

    records: list[Record]
    stopped: str


def choose_windows(limits: Limits) -> tuple[int, int]:
    """Choose a window's photographs and a worker's windows, for the concurrency asked for."""
    size = max(1, min(LARGEST_WINDOW, limits.concurrency // WINDOWS))
    return size, max(1, -(-limits.concurrency // size))


def run_dataset(options: Options, recipe: Recipe) -> Iterator[Outcome]:
    """Colorize everything that is pending; yields each window's outcome as soon as it is known.

    Raises:
        ray.exceptions.RayError: Ray itself failed.
        OSError: the source or the manifest cannot be read.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    size, windows = choose_windows(options.limits)
    context = DataContext.get_current()
    context.target_max_block_size = 1  # byte: every row, which is a window, is a block of its own
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a task without a CPU
        listing = ray.data.read_datasource(
            _create_listing(options, recipe, size), override_num_blocks=1,
            # Different from the workers', or Ray would list and colorize in one task.
            ray_remote_args={"num_cpus": 0},
        )  # fmt: skip
    dataset = listing.map_batches(
        BatchColorizer, fn_constructor_args=(options, recipe), batch_size=None,
        compute=ActorPoolStrategy(
            size=options.limits.workers, max_concurrent_calls_per_actor=windows
        ),
        num_cpus=1,
    )  # fmt: skip
    for batch in dataset.iter_batches(
        batch_size=None, batch_format="pyarrow", prefetch_batches=windows
    ):
        yield from _parse_outcomes(batch)


def _parse_outcomes(batch: "pa.Table") -> Iterator[Outcome]:
    for row in batch.to_pylist():
        records = [Record(**record) for record in json.loads(row["records"])]
        yield Outcome(records, row["stopped"])


def _create_listing(options: Options, recipe: Recipe, size: int) -> Any:
    """Create the datasource: one task that lists, as far ahead as Ray's memory for it allows."""
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    def list_blocks() -> "Iterator[pa.Table]":
        import pyarrow as pa

        for window in list_windows(options, recipe, size):
            yield pa.table({"window": [window]})

    class Listing(Datasource):  # type: ignore[misc]
        """One task that lists."""

        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[Any]:
            del parallelism
            return [ReadTask(list_blocks, BlockMetadata(None, None, None, None))]

    return Listing()
