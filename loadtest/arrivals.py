"""Send photographs at a mean rate, and measure latency and failures.

Latency runs from when a photograph was due to be sent, so a stall of the server or of the
generator counts against every photograph that was due during it (no coordinated omission).
"""

import asyncio
import itertools
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from rehue_client import RehueError

TIMEOUT = 10.0  # seconds from when a photograph is sent; later answers are failures
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
