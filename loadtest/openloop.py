"""Open-loop load: photographs arrive when they arrive, whatever became of those before.

    python loadtest/openloop.py --url grpc://127.0.0.1:9000 --limit 500
    python loadtest/openloop.py --overhead

The first finds the highest rate of Poisson arrivals at which the 99th percentile stays
within the limit (ms), and draws latency over the offered load beside the bare model's,
the ONNX file in ONNX Runtime on this machine. The second measures the generator itself
against an echo. Latency runs from when a photograph was due to be sent, so a stall of the
server or of the generator counts against everything that was due in it (no coordinated
omission). Both write into results/loadtest.
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

import numpy as np
import onnxruntime

from rehue_client import AsyncClient, RehueError, Retries
from rehue_serve import processes
from rehue_serve.ports import claim_free_ports
from rehue_serve.testing.servers import wait_for_answer
from report import as_json, log_scale, machine
from samples import squares

ROOT = Path(__file__).parents[1]
OUT = ROOT / "results" / "loadtest"
TIMEOUT = 10.0  # seconds from when a photograph was sent; later answers are failures
BATCH = 8  # of the bare model, as Triton's configuration has it
BISECTIONS = 3

Work = Callable[[bytes], Awaitable[object]]


@dataclass(frozen=True)
class Cell:
    """One rate for some seconds.

    Attributes:
        offered: arrivals a second, on average; `sent` is their number.
        answered: photographs a second, until the last answer, or the last arrival was due.
        failed: share that was refused, failed or came too late, 0 to 1; by name in `errors`.
        p50, p90, p99: ms from due to answered, of the answered; nan where none was.
        failed_p99: ms from due to refused or given up, of the others.
        lag_p99: ms that the generator itself sent late.
        cpu_ms: CPU time of the generator for each photograph.
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

    def within(self, limit: float) -> bool:
        return not self.failed and self.p99 <= limit


async def arrive(
    work: Work, photographs: Sequence[bytes], rate: float, seconds: float, seed: int = 0
) -> Cell:
    """Sends photographs in turn, ``rate`` a second on average, and waits for all answers."""
    due = arrivals(rate, seconds, seed)
    waits: list[float] = []
    lost: list[float] = []
    lags: list[float] = []
    errors: Counter[str] = Counter()
    began, cpu = time.perf_counter() + 0.05, time.process_time()

    last = began  # answer

    async def one(at: float, photograph: bytes) -> None:
        nonlocal last
        try:
            async with asyncio.timeout(TIMEOUT):
                await work(photograph)
            last = time.perf_counter()
            waits.append(last - at)
        except (RehueError, OSError, TimeoutError) as error:
            errors[type(error).__name__] += 1
            lost.append(time.perf_counter() - at)

    async with asyncio.TaskGroup() as group:
        for offset, photograph in zip(due, itertools.cycle(photographs)):
            at = began + offset
            await asyncio.sleep(at - time.perf_counter())
            lags.append(time.perf_counter() - at)
            group.create_task(one(at, photograph))
    took = max(seconds, last - began)
    return Cell(
        offered=rate,
        sent=len(due),
        answered=len(waits) / took,
        failed=len(lost) / len(due),
        errors=dict(errors),
        p50=percentile(waits, 50),
        p90=percentile(waits, 90),
        p99=percentile(waits, 99),
        failed_p99=percentile(lost, 99),
        lag_p99=percentile(lags, 99),
        cpu_ms=(time.process_time() - cpu) * 1000 / len(due),
    )


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """When photographs are due, in seconds from the start: a Poisson process, at least one."""
    chance, at = random.Random(seed), 0.0
    due: list[float] = []
    while at < seconds or not due:
        due.append(at)
        at += chance.expovariate(rate)
    return due


def percentile(seconds: Sequence[float], percent: float) -> float:
    """In ms; the least value that so many per cent do not exceed; nan of none."""
    if not seconds:
        return math.nan
    ordered = sorted(seconds)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)] * 1000


async def highest(
    work: Work, photographs: Sequence[bytes], limit: float, seconds: float, start: float
) -> tuple[float, list[Cell]]:
    """The highest rate within the limit, to an eighth of it; and all that was measured.

    Doubles from ``start`` until the limit is passed, then halves the gap. 0 where even
    the first rate is beyond it.
    """
    cells: list[Cell] = []

    async def fits(rate: float) -> bool:
        cells.append(await arrive(work, photographs, rate, seconds, seed=len(cells)))
        show(cells[-1])
        return cells[-1].within(limit)

    low, high = 0.0, start
    while await fits(high):
        low, high = high, high * 2
    for _ in range(BISECTIONS if low else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if await fits(middle) else (low, middle)
    return low, sorted(cells, key=lambda cell: cell.offered)


def show(cell: Cell) -> None:
    print(
        f"{cell.offered:7.1f}/s offered, {cell.answered:7.1f}/s answered, p50 {cell.p50:.0f} ms, "
        f"p99 {cell.p99:.0f} ms, failed {cell.failed:.1%}, "
        f"sent late by {cell.lag_p99:.1f} ms (p99), generator {cell.cpu_ms:.2f} ms CPU",
        file=sys.stderr,
    )


class Bare:
    """The ONNX file alone: what waits when it is free makes a batch, up to BATCH."""

    def __init__(self, model: str) -> None:
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = ROOT / "model_repository" / model / "1" / "model.onnx"
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        side = self._session.get_inputs()[0].shape[-1]
        self._one = np.random.default_rng(0).integers(0, 256, (1, side, side), np.uint8)
        self._waiting: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    async def work(self, _: bytes) -> None:
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        self._waiting.put(functools.partial(loop.call_soon_threadsafe, _settle, answer))
        await answer

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            batch = [self._waiting.get()]
            with contextlib.suppress(queue.Empty):
                while len(batch) < BATCH:
                    batch.append(self._waiting.get_nowait())
            done = [one for one in batch if one is not None]
            if done:
                self._session.run(None, {"lightness": np.stack([self._one] * len(done))})
            for one in done:
                one()
            if len(done) < len(batch):
                return


def _settle(answer: "asyncio.Future[None]") -> None:
    if not answer.done():
        answer.set_result(None)


@contextlib.asynccontextmanager
async def client(url: str, *, model: str | None = None) -> AsyncIterator[Work]:
    """The SDK, once for each photograph: no retry hides what the server did."""
    async with AsyncClient(url, retries=Retries(attempts=1), timeout=TIMEOUT) as one:
        yield lambda photograph: one.colorize(photograph, model=model)


async def search(url: str, model: str, limit: float, seconds: float) -> dict[str, object]:
    async with AsyncClient(url) as asking:
        if not await asking.ready():
            raise SystemExit(f"no server is ready at {url}: `make serve` starts one")
    photographs = squares()
    async with client(url, model=model) as work:
        await arrive(work, photographs, 4, 2)  # warms up
        print(f"{url}, {model}:", file=sys.stderr)
        served, cells = await highest(work, photographs, limit, seconds, start=4)
    bare = Bare(model)
    try:
        print(f"the bare model, {model}:", file=sys.stderr)
        alone, bare_cells = await highest(bare.work, photographs, limit, seconds, start=4)
    finally:
        bare.close()
    return {
        "url": url,
        "model": model,
        "machine": machine(),
        "limit_ms": limit,
        "seconds": seconds,
        "highest_rate": {"served": served, "bare": alone},
        "served": [asdict(cell) for cell in cells],
        "bare": [asdict(cell) for cell in bare_cells],
    }


def draw(
    path: Path, facts: dict[str, object], served: Sequence[Cell], bare: Sequence[Cell]
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for cells, name, color in ((served, facts["url"], "C0"), (bare, "bare model", "C1")):
        for percent, style in (("p50", "--"), ("p99", "-")):
            axes.plot(
                [cell.offered for cell in cells],
                [getattr(cell, percent) for cell in cells],
                style, marker="o", color=color, label=f"{name}, {percent}",
            )  # fmt: skip
    limit = facts["limit_ms"]
    assert isinstance(limit, float)
    axes.axhline(limit, color="gray", linewidth=1, label="limit")
    axes.set(xlabel="photographs offered a second", title="From due to answered", xlim=(0, None))
    log_scale(axes)
    figure.savefig(path, dpi=110)


async def overhead(seconds: float) -> dict[str, object]:
    """The generator against an echo that does nothing, over both protocols."""
    found: dict[str, list[dict[str, object]]] = {}
    photographs = squares()
    http, grpc = claim_free_ports(2)
    echo = subprocess.Popen(  # noqa: ASYNC220 (nothing else runs yet)
        processes.bind_to_parent(
            [sys.executable, Path(__file__).with_name("echo.py"), str(http), str(grpc)]
        ),
    )
    try:
        await asyncio.to_thread(wait_for_answer, f"http://127.0.0.1:{http}/", echo)
        for url in (f"grpc://127.0.0.1:{grpc}", f"http://127.0.0.1:{http}"):
            async with client(url) as work:
                await arrive(work, photographs, 20, 1)
                print(f"an echo, {url.partition(':')[0]}:", file=sys.stderr)
                cells = [await arrive(work, photographs, rate, seconds) for rate in (25, 100, 200)]
            for cell in cells:
                show(cell)
            found[url.partition(":")[0]] = [asdict(cell) for cell in cells]
    finally:
        echo.terminate()
        echo.wait()
    return {"machine": machine(), "seconds": seconds, "echo": found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="grpc://127.0.0.1:9000")
    parser.add_argument("--model", default="rehue")
    parser.add_argument("--limit", type=float, default=500.0, help="ms for the 99th percentile")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each rate")
    parser.add_argument("--overhead", action="store_true", help="measure the generator alone")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    if arguments.overhead:
        facts = asyncio.run(overhead(arguments.seconds))
        (OUT / "overhead.json").write_text(as_json(facts))
        return 0
    facts = asyncio.run(search(arguments.url, arguments.model, arguments.limit, arguments.seconds))
    (OUT / "openloop.json").write_text(as_json(facts))
    served, bare = ([Cell(**cell) for cell in facts[name]] for name in ("served", "bare"))  # type: ignore[attr-defined]
    draw(OUT / "openloop.png", facts, served, bare)
    rates = facts["highest_rate"]
    print(f"Highest rate with p99 <= {arguments.limit:g} ms, photographs/s: {rates}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
