"""Open-loop load: photographs arrive independently of the answers to earlier ones.

    make openloop ARGS="--url grpc://127.0.0.1:9000 --limit 500"
    make openloop ARGS=--overhead

The first finds the highest rate of Poisson arrivals at which the 99th percentile stays
within the limit (ms), and draws latency over the offered load for the server and for the
bare model (the ONNX file in ONNX Runtime on this machine). The second measures the
generator itself against an echo server. Latency runs from when a photograph was due to be
sent, so a stall of the server or of the generator counts against every photograph that
was due during it (no coordinated omission). Both write to results/loadtest.
"""

import argparse
import asyncio
import contextlib
import functools
import itertools
import math
import queue
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from loadtest.report import describe_machine, to_json, use_log_scale
from loadtest.samples import ROOT, create_squares
from rehue_client import AsyncClient, RehueError, Retries
from rehue_serve import processes
from rehue_serve.ports import claim_free_ports
from rehue_serve.testing.servers import wait_for_answer

OUT = ROOT / "results" / "loadtest"
TIMEOUT = 10.0  # seconds from when a photograph is sent; later answers are failures
MAX_BATCH = 8  # of the bare model, as in Triton's configuration
BISECTIONS = 3

Colorize = Callable[[bytes], Awaitable[object]]  # sends a photograph and waits


@dataclass(frozen=True)
class RateResult:
    """Measurements at one rate.

    Attributes:
        offered: mean arrivals per second; `sent` is their number.
        answered: photographs per second, until the last answer or the last arrival.
        failed: share that was refused, failed or late, 0 to 1; `errors` counts them by name.
        p50, p90, p99: ms from due to answered, of the answered; nan if there are none.
        failed_p99: ms from due to refused or given up, of the failed.
        lag_p99: ms by which the generator sent late.
        cpu_ms: CPU time of the generator per photograph.
    """

    offered: float
    sent: int
    answered: float
    failed: float
    errors: dict[str, int]
    p50: float
    p90: float
    p99: float
    failed_p99: float
    lag_p99: float
    cpu_ms: float

    def is_within(self, limit: float) -> bool:
        """Return whether nothing failed and the 99th percentile is at most ``limit`` ms."""
        return not self.failed and self.p99 <= limit


async def measure_rate(
    colorize: Colorize, photographs: Sequence[bytes], rate: float, seconds: float, seed: int = 0
) -> RateResult:
    """Send photographs in turn at a mean ``rate`` per second and wait for all answers."""
    offsets = draw_arrivals(rate, seconds, seed)
    latencies: list[float] = []
    failed: list[float] = []
    lags: list[float] = []
    errors: Counter[str] = Counter()
    start, cpu = time.perf_counter() + 0.05, time.process_time()
    last_answer = start

    async def send(due: float, photograph: bytes) -> None:
        nonlocal last_answer
        try:
            async with asyncio.timeout(TIMEOUT):
                await colorize(photograph)
            last_answer = time.perf_counter()
            latencies.append(last_answer - due)
        except (RehueError, OSError, TimeoutError) as error:
            errors[type(error).__name__] += 1
            failed.append(time.perf_counter() - due)

    async with asyncio.TaskGroup() as group:
        for offset, photograph in zip(offsets, itertools.cycle(photographs)):
            due = start + offset
            await asyncio.sleep(due - time.perf_counter())
            lags.append(time.perf_counter() - due)
            group.create_task(send(due, photograph))
    return RateResult(
        offered=rate,
        sent=len(offsets),
        answered=len(latencies) / max(seconds, last_answer - start),
        failed=len(failed) / len(offsets),
        errors=dict(errors),
        p50=compute_percentile(latencies, 50),
        p90=compute_percentile(latencies, 90),
        p99=compute_percentile(latencies, 99),
        failed_p99=compute_percentile(failed, 99),
        lag_p99=compute_percentile(lags, 99),
        cpu_ms=(time.process_time() - cpu) * 1000 / len(offsets),
    )


def draw_arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Return times in seconds from the start: a Poisson process with at least one arrival."""
    generator, offset = random.Random(seed), 0.0
    offsets: list[float] = []
    while offset < seconds or not offsets:
        offsets.append(offset)
        offset += generator.expovariate(rate)
    return offsets


def compute_percentile(seconds: Sequence[float], percent: float) -> float:
    """Return the percentile (nearest rank) in ms; nan without values."""
    if not seconds:
        return math.nan
    ordered = sorted(seconds)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)] * 1000


async def find_highest_rate(
    colorize: Colorize, photographs: Sequence[bytes], limit: float, seconds: float, start: float
) -> tuple[float, list[RateResult]]:
    """Find the highest rate within the limit, to an eighth of it.

    Doubles from ``start`` until the limit is exceeded, then halves the interval.

    Returns:
        The rate, 0 if even ``start`` exceeds the limit; and all results, by rate.
    """
    results: list[RateResult] = []

    async def is_within_limit(rate: float) -> bool:
        result = await measure_rate(colorize, photographs, rate, seconds, seed=len(results))
        results.append(result)
        print_result(result)
        return result.is_within(limit)

    low, high = 0.0, start
    while await is_within_limit(high):
        low, high = high, high * 2
    for _ in range(BISECTIONS if low else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if await is_within_limit(middle) else (low, middle)
    return low, sorted(results, key=lambda result: result.offered)


def print_result(result: RateResult) -> None:
    """Print a result in one line."""
    print(
        f"{result.offered:7.1f}/s offered, {result.answered:7.1f}/s answered, "
        f"p50 {result.p50:.0f} ms, p99 {result.p99:.0f} ms, failed {result.failed:.1%}, "
        f"sent late by {result.lag_p99:.1f} ms (p99), generator {result.cpu_ms:.2f} ms CPU",
        file=sys.stderr,
    )


class BareModel:
    """The ONNX file in ONNX Runtime: all waiting inputs form a batch, up to MAX_BATCH."""

    def __init__(self, model: str) -> None:
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = ROOT / "model_repository" / model / "1" / "model.onnx"
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        side = self._session.get_inputs()[0].shape[-1]
        self._input = np.random.default_rng(0).integers(0, 256, (1, side, side), np.uint8)
        self._waiting: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    async def infer(self, _: bytes) -> None:
        """Run the network on a random input and wait for its output."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._waiting.put(functools.partial(loop.call_soon_threadsafe, _set_done, done))
        await done

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            batch = [self._waiting.get()]
            with contextlib.suppress(queue.Empty):
                while len(batch) < MAX_BATCH:
                    batch.append(self._waiting.get_nowait())
            callbacks = [callback for callback in batch if callback is not None]
            if callbacks:
                self._session.run(None, {"lightness": np.stack([self._input] * len(callbacks))})
            for callback in callbacks:
                callback()
            if len(callbacks) < len(batch):  # closed
                return


def _set_done(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


@contextlib.asynccontextmanager
async def open_client(url: str, *, model: str | None = None) -> AsyncIterator[Colorize]:
    """Yield the SDK's `colorize` without retries, which would hide errors of the server."""
    async with AsyncClient(url, retries=Retries(attempts=1), timeout=TIMEOUT) as client:
        yield lambda photograph: client.colorize(photograph, model=model)


async def compare_with_bare_model(
    url: str, model: str, limit: float, seconds: float
) -> dict[str, Any]:
    """Find the highest rate of the server and of the bare model.

    Raises:
        SystemExit: no server is ready at ``url``.
    """
    async with AsyncClient(url) as client:
        if not await client.ready():
            raise SystemExit(f"no server is ready at {url}: `make serve` starts one")
    photographs = create_squares()
    async with open_client(url, model=model) as colorize:
        await measure_rate(colorize, photographs, 4, 2)  # warms up
        print(f"{url}, {model}:", file=sys.stderr)
        served, results = await find_highest_rate(colorize, photographs, limit, seconds, start=4)
    bare_model = BareModel(model)
    try:
        print(f"the bare model, {model}:", file=sys.stderr)
        bare, bare_results = await find_highest_rate(
            bare_model.infer, photographs, limit, seconds, start=4
        )
    finally:
        bare_model.close()
    return {
        "url": url,
        "model": model,
        "machine": describe_machine(),
        "limit_ms": limit,
        "seconds": seconds,
        "highest_rate": {"served": served, "bare": bare},
        "served": [asdict(result) for result in results],
        "bare": [asdict(result) for result in bare_results],
    }


def draw_chart(
    path: Path, facts: dict[str, Any], served: Sequence[RateResult], bare: Sequence[RateResult]
) -> None:
    """Draw the 50th and 99th percentile over the offered rate."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for results, name, color in ((served, facts["url"], "C0"), (bare, "bare model", "C1")):
        for percent, style in (("p50", "--"), ("p99", "-")):
            axes.plot(
                [result.offered for result in results],
                [getattr(result, percent) for result in results],
                style, marker="o", color=color, label=f"{name}, {percent}",
            )  # fmt: skip
    axes.axhline(facts["limit_ms"], color="gray", linewidth=1, label="limit")
    axes.set(
        xlabel="offered photographs per second",
        title="Latency from due to answered",
        xlim=(0, None),
    )
    use_log_scale(axes)
    figure.savefig(path, dpi=110)


async def measure_overhead(seconds: float) -> dict[str, Any]:
    """Measure the generator against an echo server, over both protocols."""
    found: dict[str, list[dict[str, object]]] = {}
    photographs = create_squares()
    http, grpc = claim_free_ports(2)
    echo = subprocess.Popen(  # noqa: ASYNC220 (nothing else runs yet)
        processes.bind_to_parent([sys.executable, "-m", "loadtest.echo", str(http), str(grpc)]),
        cwd=ROOT,
    )
    try:
        await asyncio.to_thread(wait_for_answer, f"http://127.0.0.1:{http}/", echo)
        for url in (f"grpc://127.0.0.1:{grpc}", f"http://127.0.0.1:{http}"):
            protocol = url.partition(":")[0]
            async with open_client(url) as colorize:
                await measure_rate(colorize, photographs, 20, 1)  # warms up
                print(f"an echo server, {protocol}:", file=sys.stderr)
                results = [
                    await measure_rate(colorize, photographs, rate, seconds)
                    for rate in (25, 100, 200)
                ]
            for result in results:
                print_result(result)
            found[protocol] = [asdict(result) for result in results]
    finally:
        echo.terminate()
        echo.wait()
    return {"machine": describe_machine(), "seconds": seconds, "echo": found}


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="grpc://127.0.0.1:9000")
    parser.add_argument("--model", default="rehue")
    parser.add_argument("--limit", type=float, default=500.0, help="of the 99th percentile, ms")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each rate")
    parser.add_argument("--overhead", action="store_true", help="measure only the generator")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    if arguments.overhead:
        facts = asyncio.run(measure_overhead(arguments.seconds))
        (OUT / "overhead.json").write_text(to_json(facts))
        return 0
    facts = asyncio.run(
        compare_with_bare_model(arguments.url, arguments.model, arguments.limit, arguments.seconds)
    )
    (OUT / "openloop.json").write_text(to_json(facts))
    served, bare = ([RateResult(**result) for result in facts[name]] for name in ("served", "bare"))
    draw_chart(OUT / "openloop.png", facts, served, bare)
    rates = facts["highest_rate"]
    print(f"Highest rate with p99 <= {arguments.limit:g} ms, photographs/s: {rates}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
