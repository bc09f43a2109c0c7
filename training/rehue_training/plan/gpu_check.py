"""Measures what this machine's GPU does with the models, beside what it could do at best.

The ceiling is measured in the same run: FP16 matrix products for arithmetic, copies within its
memory for bandwidth. Latency is the GPU's own time for a batch that is already in its memory, as a
CUDA graph: the figure of trtexec's --noDataTransfers --useCudaGraph.
"""

import importlib.util
import logging
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rehue_training.plan import tensorrt
from rehue_training.plan.cost import Cost, estimate_cost
from rehue_training.plan.gpu_runners import LoadedNetwork, Runner, TensorRTRunner, Work
from rehue_training.plan.identity import PlanRefused
from rehue_training.plan.options import PlanOptions
from rehue_training.plan.served_model import ServedModel
from rehue_training.plan.tensorrt_package import BuildFailed, NoTensorRT

log = logging.getLogger(__name__)

NEEDS = (
    "gpu-check needs an NVIDIA GPU with its driver, and TensorRT's Python package "
    "(pip install '.[tensorrt]' in the repository) or, in its place, PyTorch with CUDA."
)


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    seconds: float = 3.0  # of one measurement
    side: int = 8192  # of the square matrices that measure arithmetic
    copied: int = 1 << 30  # bytes of a copy: far beyond any cache
    runs: int = 20  # of one measurement, at least
    together: int = 10  # runs queued at once, so that the GPU need not wait for this process


@dataclass(frozen=True)
class Ceiling:
    """The best rates measured on this GPU, per second."""

    operations: float
    bytes: float


def select_runner() -> Runner:
    """Selects TensorRT on this machine's GPU, or PyTorch if only TensorRT is missing.

    Raises:
        NoGpu: there is no GPU.
        NoTensorRT: there is neither TensorRT nor PyTorch.
    """
    try:
        return TensorRTRunner(tensorrt.load_on_first_gpu())
    except NoTensorRT:
        if importlib.util.find_spec("torch") is None:
            raise
        from rehue_training.plan.torch_runner import TorchRunner

        return TorchRunner()


def check_models(
    models: Sequence[ServedModel], options: PlanOptions, *, runner: Runner, effort: Effort
) -> Iterator[dict[str, Any]]:
    """Builds, compares and measures the models.

    Yields:
        The result as it is written to JSON, after the ceiling and then after each model, so that
        whatever ends a check of many minutes leaves what was measured. A model whose plan was
        refused or could not be built is in it with the reason, and the next one follows.
    """
    precision = options.describe_precision()  # before minutes of work: it may lack photographs
    log.info("measuring the GPU's ceiling; TensorRT may build that for minutes")
    ceiling = measure_ceiling(runner, effort, options.level)
    result: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "runner": runner.name,
        "gpu": runner.gpu,
        "precision": precision,
        "ceiling": asdict(ceiling),
        "models": {},
    }
    yield result
    for model in models:
        try:
            found = measure_model(model, options, runner, effort, ceiling)
        except PlanRefused as error:
            found = {"refused": str(error)}
        except BuildFailed as error:
            found = {"failed": str(error)}
        result["models"][model.name] = found
        yield result


def measure_ceiling(runner: Runner, effort: Effort, level: int | None) -> Ceiling:
    """Measures the fastest matrix product, built at this level, and the fastest copy."""
    with runner.open_product(effort.side, level) as work:
        product = min(measure_times(runner, work, effort))
    with runner.open_copy(effort.copied) as work:
        copy = min(measure_times(runner, work, effort))
    # A copy reads and writes each byte.
    return Ceiling(2 * effort.side**3 / product, 2 * effort.copied / copy)


def measure_model(
    model: ServedModel, options: PlanOptions, runner: Runner, effort: Effort, ceiling: Ceiling
) -> dict[str, Any]:
    """Measures a model: its cost, its distance to the ONNX file, and a row for each batch size."""
    cost = estimate_cost(options.convert_onnx(model))
    largest = model.contract.max_batch
    with runner.load_network(model, options) as network:
        log.info("%s: measuring batches of 1 to %d", model.name, largest)
        rows = [
            measure_batch(network, cost, batch, runner, effort, ceiling)
            for batch in list_batches(largest)
        ]
        return {"cost": asdict(cost), "parity": asdict(network.parity), "batches": rows}


def list_batches(largest: int) -> Iterator[int]:
    """Yields 1, 2, 4 and so on, and the largest."""
    batch = 1
    while batch < largest:
        yield batch
        batch *= 2
    yield largest


def measure_batch(
    network: LoadedNetwork, cost: Cost, batch: int, runner: Runner, effort: Effort, ceiling: Ceiling
) -> dict[str, float]:
    """Measures the time of a batch size, and the share of the ceiling that this is."""
    count = effort.together
    with network.open_batch(batch) as work:
        alone = sorted(measure_times(runner, work, effort))
        together = min(measure_times(runner, lambda: _repeat(work, count), effort)) / count
    bound = cost.compute_bound(batch, operations_rate=ceiling.operations, bytes_rate=ceiling.bytes)
    return {
        "batch": batch,
        "latency_ms": statistics.median(alone) * 1000,
        "latency_p99_ms": alone[int(0.99 * (len(alone) - 1))] * 1000,
        "images_per_second": batch / together,
        "operations_per_second": batch * cost.operations / together,
        "bytes_per_second": cost.count_bytes(batch) / together,
        "of_ceiling": bound / together,
    }


def _repeat(work: Work, count: int) -> None:
    for _ in range(count):
        work()


def measure_times(runner: Runner, work: Work, effort: Effort) -> list[float]:
    """Measures the seconds of each of many runs."""
    runner.measure_seconds(work)  # the first is not counted
    times: list[float] = []
    while len(times) < effort.runs or sum(times) < effort.seconds:
        times.append(runner.measure_seconds(work))
    return times
