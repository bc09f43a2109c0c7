"""What this machine's GPU does with the models, beside what it could do at best.

The ceiling is measured in the same run: FP16 matrix products for arithmetic, copies
within its memory for bandwidth. Latency is the GPU's own time for a batch that lies in
its memory already, as a CUDA graph: the figure of trtexec's --noDataTransfers
--useCudaGraph.
"""

import importlib.util
import logging
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rehue_core import spec
from rehue_training.plan import cost, tensorrt
from rehue_training.plan.cost import Cost
from rehue_training.plan.gpu_runners import Loaded, Runner, TensorRTRunner, TorchRunner, Work
from rehue_training.plan.identity import PlanRefused
from rehue_training.plan.plans import CONFIG, Options
from rehue_training.plan.tensorrt_package import BuildFailed, NoTensorRT

log = logging.getLogger(__name__)

NEEDS = (
    "gpu-check needs an NVIDIA GPU with its driver, and TensorRT's Python package "
    "(pip install 'rehue[tensorrt]') or, in its place, PyTorch with CUDA."
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
    """What this GPU was seen to do at best; both a second."""

    operations: float
    bytes: float


def runner() -> Runner:
    """TensorRT on this machine's GPU; PyTorch where only TensorRT is missing.

    Raises:
        NoGpu: there is no GPU.
        NoTensorRT: there is neither TensorRT nor PyTorch.
    """
    try:
        return TensorRTRunner(tensorrt.load_on_first_gpu())
    except NoTensorRT:
        if importlib.util.find_spec("torch") is None:
            raise
        return TorchRunner()


def check(
    models: Sequence[Path], options: Options, *, on: Runner, effort: Effort
) -> Iterator[dict[str, Any]]:
    """Builds, compares and measures the models.

    Yields:
        The result as JSON has it: after the ceiling, then with each model, so that whatever ends
        a check of many minutes leaves what was measured. A model whose plan was refused or could
        not be built is there with the reason, and the next one follows.
    """
    named = options.named  # before minutes of work: it may lack photographs
    log.info("measuring the GPU's ceiling; TensorRT may build that for minutes")
    best = ceiling(on, effort, options.level)
    result: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "runner": on.name,
        "gpu": on.gpu,
        "precision": named,
        "ceiling": asdict(best),
        "models": {},
    }
    yield result
    for one in models:
        try:
            found = measured(one, options, on, effort, best)
        except PlanRefused as error:
            found = {"refused": str(error)}
        except BuildFailed as error:
            found = {"failed": str(error)}
        result["models"][one.name] = found
        yield result


def ceiling(on: Runner, effort: Effort, level: int | None) -> Ceiling:
    """The rates of the quickest matrix product, built at this level, and the quickest copy."""
    with on.product(effort.side, level) as work:
        product = min(times(on, work, effort))
    with on.copy(effort.copied) as work:
        copy = min(times(on, work, effort))
    # A copy reads and writes each byte.
    return Ceiling(2 * effort.side**3 / product, 2 * effort.copied / copy)


def measured(
    model: Path, options: Options, on: Runner, effort: Effort, best: Ceiling
) -> dict[str, Any]:
    """One model's cost, distance to its ONNX file, and a row a batch size."""
    needed = cost.of(options.onnx(model))
    largest = spec.read_model_contract(model / CONFIG).max_batch
    with on.network(model, options) as network:
        log.info("%s: measuring batches of 1 to %d", model.name, largest)
        rows = [row(network, needed, batch, on, effort, best) for batch in batches(largest)]
        return {"cost": asdict(needed), "parity": asdict(network.parity), "batches": rows}


def batches(largest: int) -> Iterator[int]:
    """1, 2, 4 and so on, and the largest."""
    batch = 1
    while batch < largest:
        yield batch
        batch *= 2
    yield largest


def row(
    network: Loaded, needed: Cost, batch: int, on: Runner, effort: Effort, best: Ceiling
) -> dict[str, float]:
    """What a batch size takes, and the share of the ceiling that this is."""
    with network.at(batch) as work:
        alone = sorted(times(on, work, effort))
        together = min(times(on, lambda: repeat(work, effort.together), effort)) / effort.together
    bound = needed.shortest(batch, operations_rate=best.operations, bytes_rate=best.bytes)
    return {
        "batch": batch,
        "latency_ms": statistics.median(alone) * 1000,
        "latency_p99_ms": alone[int(0.99 * (len(alone) - 1))] * 1000,
        "images_per_second": batch / together,
        "operations_per_second": batch * needed.operations / together,
        "bytes_per_second": needed.bytes_of(batch) / together,
        "of_ceiling": bound / together,
    }


def repeat(work: Work, count: int) -> None:
    """Do the work ``count`` times."""
    for _ in range(count):
        work()


def times(on: Runner, work: Work, effort: Effort) -> list[float]:
    """Seconds of each of many runs."""
    on.seconds(work)  # the first is not counted
    taken: list[float] = []
    while len(taken) < effort.runs or sum(taken) < effort.seconds:
        taken.append(on.seconds(work))
    return taken


def head(result: dict[str, Any]) -> str:
    """What was measured on, and its ceiling."""
    best = Ceiling(**result["ceiling"])
    return (
        f"{result['gpu']}; {result['runner']}; {result['precision']}; {result['date']}\n"
        f"Ceiling of this GPU in the same run: {best.operations / 1e12:.1f} TFLOP/s in an FP16 "
        f"matrix product, {best.bytes / 1e9:.0f} GB/s in a copy"
    )


def table(name: str, one: dict[str, Any]) -> str:
    """One model's part of the result."""
    for reason in ("refused", "failed"):
        if reason in one:
            return f"\n{name}: {reason}: {one[reason]}"
    return "\n".join(["", _heading(name, one), "", *TABLE, *map(_line, one["batches"])])


TABLE = (
    "| Batch | Latency, ms | p99, ms | Images/s | TFLOP/s | GB/s | Share of the ceiling |",
    "| --- | --- | --- | --- | --- | --- | --- |",
)


def _heading(name: str, one: dict[str, Any]) -> str:
    needed = Cost(**one["cost"])
    found = ", ".join(f"{key} {value:.4f}" for key, value in one["parity"].items())
    return (
        f"{name}: {needed.operations / 1e9:.2f} GFLOP and {needed.traffic / 1e6:.1f} MB "
        f"a photograph, {needed.weights / 1e6:.1f} MB of weights a batch; "
        f"distance to the ONNX file: {found}"
    )


def _line(row: dict[str, float]) -> str:
    return (
        f"| {row['batch']:.0f} | {row['latency_ms']:.3f} | {row['latency_p99_ms']:.3f} "
        f"| {row['images_per_second']:.0f} | {row['operations_per_second'] / 1e12:.2f} "
        f"| {row['bytes_per_second'] / 1e9:.0f} | {row['of_ceiling']:.2f} |"
    )
