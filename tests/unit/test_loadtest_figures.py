"""Load tests without a server: ledger, report, arrivals, rate search, capacity worksheet."""

import asyncio
import itertools
import json
import math
import time
from pathlib import Path

import numpy as np
import pytest

from loadtest import arrivals, capacity, report
from loadtest.ledger import Ledger, Outcome, Tally, round_milliseconds


def test_ledgers_of_workers_add_up() -> None:
    worker, master = Ledger(), Ledger()
    for milliseconds in (10, 20, 1234):
        worker.add(Outcome.COLORIZED, milliseconds, {"decode": 2.0, "infer": 5.0})
    worker.add(Outcome.FAILED, 5, {})
    master.add(Outcome.DENIED, 1, {})
    master.merge(json.loads(json.dumps(worker.drain())))
    total = master.sum_between(0, math.inf)
    assert total.outcomes == {"colorized": 3, "failed": 1, "denied": 1}
    assert (total.compute_percentile(50), total.compute_percentile(99)) == (20, 1230)
    assert total.compute_share(Outcome.FAILED) == pytest.approx(0.2)
    means = total.compute_means()
    assert means["decode"] == 2
    assert means["elsewhere"] == pytest.approx((10 + 20 + 1234) / 3 - 7)
    assert not worker.drain()


def test_milliseconds_are_rounded_to_three_digits() -> None:
    assert [round_milliseconds(value) for value in (0.2, 99.6, 1234, 98765)] == [
        1,
        100,
        1230,
        98800,
    ]


def test_stage_counts_after_its_users_have_started() -> None:
    assert report.compute_windows([(10, 4, 2), (10, 8, 2)], 100.0, 120.0) == [
        (4, 104.0, 110.0),
        (8, 114.0, 120.0),
    ]
    assert report.compute_windows([(10, 4, 2), (10, 8, 2)], 100.0, 106.0) == [(4, 104.0, 106.0)]


def test_missed_levels_are_named() -> None:
    tally = Tally()
    for _ in range(9):
        tally.add(Outcome.COLORIZED, 100, {})
    tally.add(Outcome.REFUSED, 1, {})
    stages = [report.StageResult(4, 3.0, tally)]
    assert not list_missed(stages, tally, p99_ms=100, refused=0.1, rate=3, drift=1)
    missed = list_missed(stages, tally, p99_ms=99, refused=0.05, rate=4, failed=0, drift=0.9)
    assert missed == ["p99_ms", "refused", "rate", "drift"]
    assert list_missed([], Tally(), failed=0) == ["answered"]
    assert list_missed([], Tally(), p99_ms=1) == ["answered", "p99_ms"]


def test_report_of_a_run_without_an_answer(tmp_path: Path) -> None:
    nothing = Tally()
    stages = [report.StageResult(1, 5.0, nothing)]
    assert not report.write_report(
        tmp_path, title="", stages=stages, total=nothing, levels={"p99_ms": 1}, locust=None
    )
    facts = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert facts["stages"][0]["p99_ms"] is None
    assert "missed" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "latency.png").stat().st_size > 0


def list_missed(stages: list[report.StageResult], total: Tally, **levels: float) -> list[str]:
    judged = report.judge_levels(stages, total, levels)
    return [level["level"] for level in judged if not level["met"]]


def test_arrivals_are_a_poisson_process() -> None:
    due = arrivals.draw_arrivals(100, 60, seed=1)
    gaps = np.diff(due)
    assert len(due) == pytest.approx(6000, rel=0.05)
    # The exponential distribution's deviation is its mean.
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)


async def test_stall_counts_against_every_photograph_due_during_it() -> None:
    start = time.perf_counter()
    stall = 1.0  # seconds

    async def colorize(_: bytes) -> None:
        await asyncio.sleep(start + stall - time.perf_counter())

    result = await arrivals.measure_rate(colorize, [b""], 50, 2.0)
    # One of the two seconds of arrivals is stalled, so half of the photographs wait. A
    # generator that waits for answers would send one photograph during the stall.
    assert result.sent > 50
    assert result.p90 > 300
    assert result.p99 > 700


async def test_fast_refusals_do_not_lower_the_latency() -> None:
    refuse = itertools.cycle([True, False])

    async def colorize(_: bytes) -> None:
        if next(refuse):
            raise OSError
        await asyncio.sleep(0.3)

    result = await arrivals.measure_rate(colorize, [b""], 100, 0.5)
    assert result.failed == pytest.approx(0.5, abs=0.02)
    assert result.errors == {"OSError": round(result.failed * result.sent)}
    assert result.p50 >= 300
    assert not result.is_within(10_000)


async def test_rate_search_stops_below_the_capacity() -> None:
    one_at_a_time = asyncio.Lock()

    async def colorize(_: bytes) -> None:
        async with one_at_a_time:
            await asyncio.sleep(0.01)

    rate, results = await arrivals.find_highest_rate(colorize, [b""], 200, 0.5, start=10)
    assert 10 <= rate < 100 * 1.5  # at most 100/s, and a little more in so short a time
    assert results == sorted(results, key=lambda result: result.offered)
    assert not results[-1].is_within(200)


def test_worksheet_follows_from_the_measurements() -> None:
    base = capacity.ChainResult(rate=100, cpu=0.01, memory=2**30, sent=20_000, received=30_000)
    row = capacity.compute_worksheet(base, (0.1, 2.0))[1]
    assert row["gpu_per_second"] == 1000
    # 800/s at 10 ms take 8 cores, planned as 10; with the GPU 3.00 per hour for 2.88 million.
    assert row["chain_cores"] == pytest.approx(10)
    assert (row["workers"], row["memory_gib"]) == (3, 3)
    assert row["clients_mb_per_second"] == pytest.approx(40)
    assert row["cost_per_million"] == pytest.approx(3 / 2.88)
