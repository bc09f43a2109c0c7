"""Reservations of memory: what waits, what passes, what is refused."""

import asyncio
import contextlib

import pytest

from rehue_serve import memory
from rehue_serve.errors import Overloaded
from rehue_serve.memory import MemoryBudget


async def hold(budget: MemoryBudget, size: int, order: list[int], end: asyncio.Event) -> None:
    async with budget.reserve(size):
        order.append(size)
        await end.wait()


async def test_what_does_not_fit_waits_and_smaller_ones_pass() -> None:
    budget, end = MemoryBudget(100), asyncio.Event()
    order: list[int] = []
    tasks = [asyncio.create_task(hold(budget, size, order, end)) for size in (80, 60, 15)]
    await asyncio.sleep(0.01)
    assert order == [80, 15]
    end.set()
    await asyncio.gather(*tasks)
    assert order == [80, 15, 60]


async def test_more_than_the_limit_is_taken_alone() -> None:
    budget, end = MemoryBudget(100), asyncio.Event()
    order: list[int] = []
    tasks = [asyncio.create_task(hold(budget, size, order, end)) for size in (500, 10)]
    await asyncio.sleep(0.01)
    assert order == [500]
    end.set()
    await asyncio.gather(*tasks)


async def test_waiting_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_WAIT", 0.05)
    budget = MemoryBudget(100)
    async with budget.reserve(90):
        with pytest.raises(Overloaded) as caught:
            async with budget.reserve(20):
                pass
    assert caught.value.retry_after
    async with budget.reserve(100):  # the refused one holds nothing
        pass


async def test_a_cancelled_wait_holds_nothing() -> None:
    budget, end = MemoryBudget(100), asyncio.Event()
    order: list[int] = []
    async with budget.reserve(90):
        waiting = asyncio.create_task(hold(budget, 50, order, end))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
    async with asyncio.timeout(1), budget.reserve(100):
        assert not order
