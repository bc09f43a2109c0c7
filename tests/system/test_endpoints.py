"""Which Triton is called, how often, with which timeouts: real ones whose networks sleep."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np
import pytest

import rehue_serve.models
from rehue_serve import endpoints
from rehue_serve.endpoints import Endpoints
from rehue_serve.errors import Unavailable
from rehue_serve.testing.tritons import SleepingTriton
from rehue_serve.triton import RETRY_RESERVE, TritonClient

Infer = Callable[[], Awaitable[object]]


@contextlib.asynccontextmanager
async def open_endpoints(*urls: str, limit: int = 2) -> AsyncIterator[tuple[Endpoints, Infer]]:
    """Yield the endpoints, and a function that sends them a photograph."""
    asked = Endpoints(urls, model="rehue", limit=limit)
    triton = TritonClient(asked, default_model="rehue")
    await triton.start()
    spec = await triton.models.get_spec("rehue")
    input = np.zeros((1, spec.height, spec.width), np.uint8)
    loop = asyncio.get_running_loop()
    try:
        yield asked, lambda: triton.infer(spec, input, loop.time() + 30)
    finally:
        await triton.close()


def list_addresses(asked: Endpoints) -> set[str]:
    return {endpoint.address for endpoint in asked.list_all()}


async def test_name_is_looked_up_again(
    sleepers: list[SleepingTriton], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tritons are added and removed as the name says; a failed lookup changes nothing."""
    first, second = (triton.url for triton in sleepers)
    listed: set[str] | OSError = {first}

    async def look_up(url: str) -> set[str]:
        assert url == "dns:triton:8001"
        if isinstance(listed, OSError):
            raise listed
        return listed

    monkeypatch.setattr(endpoints, "resolve_addresses", look_up)
    monkeypatch.setattr(endpoints, "RESOLVE_INTERVAL", 0.1)
    async with open_endpoints("dns:triton:8001") as (asked, infer):
        for now in ({first, second}, {second}, OSError("try again"), {first}):
            listed = now
            expected = list_addresses(asked) if isinstance(now, OSError) else now
            # Photographs go on while the list changes.
            for _ in range(10):
                await infer()
                await asyncio.sleep(0.02)
            assert list_addresses(asked) == expected


async def test_name_is_every_address_behind_it() -> None:
    found = await endpoints.resolve_addresses("dns:localhost:8001")
    assert found <= {"127.0.0.1:8001", "[::1]:8001"}
    assert found


async def test_calls_in_flight_stay_within_the_limit(sleepers: list[SleepingTriton]) -> None:
    sleepers[0].set_batch_seconds(0.1)
    most = 0
    try:
        async with open_endpoints(sleepers[0].url, limit=2) as (asked, infer):
            work = [asyncio.create_task(infer()) for _ in range(40)]  # type: ignore[arg-type, var-annotated]
            while not all(task.done() for task in work):
                most = max(most, *(endpoint.in_flight for endpoint in asked.list_all()))
                await asyncio.sleep(0.01)
            await asyncio.gather(*work)
    finally:
        sleepers[0].set_batch_seconds()
    assert most == 2


async def test_busy_triton_is_called_less(sleepers: list[SleepingTriton]) -> None:
    """The one with the fewest calls in flight is called, so a slow one gets fewer."""
    slow, quick = sleepers
    before = [triton.count_photographs() for triton in (slow, quick)]
    slow.set_batch_seconds(0.5)
    try:
        async with open_endpoints(slow.url, quick.url, limit=64) as (_, infer):
            work: list[asyncio.Task[object]] = []
            for _ in range(80):
                work.append(asyncio.create_task(infer()))  # type: ignore[arg-type]
                await asyncio.sleep(0.025)
            await asyncio.gather(*work)
    finally:
        slow.set_batch_seconds()
    by_slow, by_quick = (
        triton.count_photographs() - earlier
        for triton, earlier in zip((slow, quick), before, strict=True)
    )
    assert by_quick > 3 * by_slow


async def test_dying_cluster_is_not_stampeded(
    sleepers: list[SleepingTriton], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When every call fails, retries end with the budget, far below four a photograph."""
    monkeypatch.setattr(endpoints, "MAX_ERRORS", 10_000)  # nobody is ejected, all are called
    photographs = 60
    before = sum(triton.count_failed_calls() for triton in sleepers)
    for triton in sleepers:
        triton.start_failing()
    try:
        async with open_endpoints(*(triton.url for triton in sleepers)) as (_, infer):
            for _ in range(photographs):
                with pytest.raises(Unavailable) as caught:
                    await infer()
                assert caught.value.retry_after
    finally:
        for triton in sleepers:
            triton.stop_failing()
    calls = sum(triton.count_failed_calls() for triton in sleepers) - before
    assert photographs < calls <= photographs + RETRY_RESERVE


async def test_triton_that_stops_computing_is_ejected_until_it_computes(
    sleepers: list[SleepingTriton],
) -> None:
    """With a broken CUDA context every call is INTERNAL, while Triton reports that it is ready."""
    broken, good = sleepers
    broken.start_failing()
    try:
        async with open_endpoints(broken.url, good.url) as (asked, infer):
            (endpoint,) = (
                found_endpoint
                for found_endpoint in asked.list_all()
                if found_endpoint.address == broken.url
            )
            began = time.monotonic()
            while endpoint.healthy:
                assert time.monotonic() - began < 30
                await infer()
            failed, began = broken.count_failed_calls(), time.monotonic()
            for _ in range(3 * endpoints.MAX_ERRORS):  # and no probe lets it back
                await infer()
                await asyncio.sleep(0.2)
                assert not endpoint.healthy
            # Meanwhile it got probes alone, and answered them with errors.
            probes = (time.monotonic() - began) / (0.8 * endpoints.PROBE_INTERVAL) + 1
            assert 0 < broken.count_failed_calls() - failed <= probes
            broken.stop_failing()
            began = time.monotonic()
            while not endpoint.healthy:
                assert time.monotonic() - began < 5
                await asyncio.sleep(0.05)
            assert len(asked.list_available()) == 2
            await infer()
    finally:
        with contextlib.suppress(FileNotFoundError):
            broken.stop_failing()


async def test_model_that_fails_ejects_no_triton(sleepers: list[SleepingTriton]) -> None:
    """Other models still use the Triton: only errors of the default model count."""
    async with open_endpoints(sleepers[0].url) as (asked, infer):
        (endpoint,) = asked.list_all()
        for _ in range(3 * endpoints.MAX_ERRORS):
            asked.record_error(endpoint, "INTERNAL", ejects=False)
        assert endpoint.healthy
        await infer()
        assert endpoint.errors == 0


async def test_frozen_triton_cancels_no_request(
    sleepers: list[SleepingTriton], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is closed while calls wait for a model's configuration."""
    monkeypatch.setattr(rehue_serve.models, "SPEC_MAX_AGE", 0.0)
    monkeypatch.setattr(endpoints, "PROBE_TIMEOUT", 0.3)
    urls = [sleeper.url for sleeper in sleepers]
    asked = TritonClient(Endpoints(urls, model="rehue", limit=2), default_model="rehue")
    await asked.start()
    os.kill(sleepers[0].pid, signal.SIGSTOP)
    try:
        work = []
        for _ in range(60):
            work.append(asyncio.create_task(asked.models.get_spec("rehue")))
            await asyncio.sleep(0.05)
        specs = await asyncio.gather(*work)
        assert all(spec == specs[0] for spec in specs)
    finally:
        os.kill(sleepers[0].pid, signal.SIGCONT)
        await asked.close()


async def test_probes_find_what_is_not_ready(sleepers: list[SleepingTriton]) -> None:
    """No call has to fail first."""
    async with open_endpoints(*(triton.url for triton in sleepers)) as (asked, _):
        assert len(asked.list_available()) == 2
        sleepers[0].unload_model()
        try:
            began = time.monotonic()
            while len(asked.list_available()) == 2:
                assert time.monotonic() - began < 30
                await asyncio.sleep(0.05)
            assert {endpoint.address for endpoint in asked.list_available()} == {sleepers[1].url}
        finally:
            sleepers[0].load_model()
        while len(asked.list_available()) < 2:
            assert time.monotonic() - began < 60
            await asyncio.sleep(0.05)
