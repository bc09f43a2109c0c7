"""`colorize_many`: bounded, lazy, one outcome per photograph."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from waiting import wait_for

from rehue_client import AsyncClient, Client, InvalidImage, Result, Retries, SourceError
from rehue_serve.testing.scripted import Action, Delay, Refusal, ScriptedServer, serve

QUICK = Retries(first=0.01, longest=0.05)


def choose_action(image: bytes) -> Action:
    """Refuse photographs whose content begins with ``bad``."""
    return Refusal("INVALID_IMAGE") if image.startswith(b"bad") else Delay(0.02)


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    with serve(ScriptedServer(always=choose_action)) as server:
        yield server


def collect_sync(url: str, sources: Any, **options: Any) -> list[Result]:
    with Client(url, retries=QUICK) as client:
        return list(client.colorize_many(sources, **options))


def collect_async(url: str, sources: Any, **options: Any) -> list[Result]:
    async def run() -> list[Result]:
        async with AsyncClient(url, retries=QUICK) as client:
            return [result async for result in client.colorize_many(sources, **options)]

    return asyncio.run(run())


@pytest.fixture(params=[collect_sync, collect_async])
def many(request: pytest.FixtureRequest) -> Callable[..., list[Result]]:
    param: Callable[..., list[Result]] = request.param
    return param


def make_photos(count: int) -> list[bytes]:
    return [b"photo %d" % number for number in range(count)]


def test_every_photograph_comes_back_once(
    many: Callable[..., list[Result]], url: str, scripted: ScriptedServer
) -> None:
    results = many(url, make_photos(30), concurrency=5, strength=0.5)
    assert sorted(result.source for result in results) == sorted(make_photos(30))  # type: ignore[type-var]
    assert all(result.picture.data == result.source for result in results)  # type: ignore[union-attr]
    assert scripted.most_at_once <= 5
    assert {request.options["strength"] for request in scripted.requests} == {"0.5"}


def test_failures_do_not_stop_the_others(
    many: Callable[..., list[Result]], url: str, scripted: ScriptedServer
) -> None:
    sources = [b"photo 1", b"bad", "nowhere.jpg", b"photo 2"]
    results = {result.source: result for result in many(url, sources)}
    assert isinstance(results[b"bad"].error, InvalidImage)
    assert isinstance(results["nowhere.jpg"].error, SourceError)
    assert results[b"photo 1"].picture
    assert results[b"photo 2"].picture
    assert results[b"photo 1"].error is None


def test_each_photograph_is_retried_on_its_own(
    many: Callable[..., list[Result]], url: str, scripted: ScriptedServer
) -> None:
    scripted.always = None
    scripted.script = [Refusal("UNAVAILABLE") for _ in range(6)]
    assert all(result.picture for result in many(url, make_photos(10), concurrency=3))
    assert len(scripted.requests) == 16


def test_sources_are_consumed_lazily(url: str) -> None:
    consumed = []

    def endless() -> Iterator[bytes]:
        for number in range(10**9):
            consumed.append(number)
            yield b"photo %d" % number

    with Client(url) as client:
        results = client.colorize_many(endless(), concurrency=4)
        for _ in range(10):
            next(results)
            assert len(consumed) <= 20
        results.close()
        read = len(consumed)
        time.sleep(0.1)
        assert len(consumed) == read


def test_asynchronous_sources_are_accepted(url: str) -> None:
    async def sources() -> AsyncIterator[bytes]:
        for image in make_photos(5):
            await asyncio.sleep(0)
            yield image

    assert len(collect_async(url, sources())) == 5


def test_closing_early_cancels_requests_in_flight(url: str, scripted: ScriptedServer) -> None:
    scripted.always = lambda image: Delay(5) if image != b"photo 0" else None

    async def run() -> None:
        async with AsyncClient(url) as client:
            results = client.colorize_many(make_photos(100), concurrency=4)
            async with contextlib.aclosing(results):
                async for _ in results:
                    break

    start = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - start < 2
    assert len(scripted.requests) <= 5


def test_exception_in_the_callers_iterable_is_raised(url: str) -> None:
    def broken() -> Iterator[bytes]:
        yield b"photo"
        raise LookupError("raised by the caller")

    threads = threading.active_count()
    with pytest.raises(LookupError, match="raised by the caller"):
        collect_sync(url, broken())
    wait_for(lambda: threading.active_count() <= threads + 1)
    with pytest.raises(LookupError, match="raised by the caller"):
        collect_async(url, broken())


def test_concurrency_of_zero_is_refused(url: str) -> None:
    with Client(url) as client, pytest.raises(ValueError, match="at least 1"):
        client.colorize_many([], concurrency=0)
    with pytest.raises(ValueError, match="at least 1"):
        AsyncClient(url).colorize_many([], concurrency=0)
