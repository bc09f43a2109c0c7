"""The running system under a steady load while its parts fail: no photograph is lost.

``make test`` runs the short forms, ``make test-faults`` the long ones. Where the
server has to hide a fault, the client makes no retries.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import httpx
import numpy as np
import psutil
import pytest
from load import Load, measure_goodput
from systems import System

from rehue_client import Overloaded
from rehue_client.retries import Retries
from rehue_serve.embedded import EmbeddedTriton
from rehue_serve.endpoints import Endpoints
from rehue_serve.triton import TritonClient

RATE = 30  # photographs a second, over gRPC and HTTP in turn
BACK = 5.0  # seconds in which a Triton that returns has to be used again


@contextlib.contextmanager
def killed(system: System, which: int) -> Iterator[None]:
    with _end(system.tritons[which], signal.SIGKILL):
        yield


@contextlib.contextmanager
def terminated(system: System, which: int) -> Iterator[None]:
    with _end(system.tritons[which], signal.SIGTERM):
        yield


@contextlib.contextmanager
def _end(triton: EmbeddedTriton, number: int) -> Iterator[None]:
    os.kill(triton.pid, number)
    yield
    triton.stop()
    triton.start()


@contextlib.contextmanager
def frozen(system: System, which: int) -> Iterator[None]:
    os.kill(system.tritons[which].pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(system.tritons[which].pid, signal.SIGCONT)


@contextlib.contextmanager
def unloaded(system: System, which: int) -> Iterator[None]:
    system.tritons[which].unload_model()
    yield
    system.tritons[which].load_model()


@contextlib.contextmanager
def erring(system: System, which: int) -> Iterator[None]:
    system.tritons[which].start_failing()
    try:
        yield
    finally:
        system.tritons[which].stop_failing()


@contextlib.contextmanager
def cut_off(system: System, which: int) -> Iterator[None]:
    assert which == 1
    system.proxy.cut()
    try:
        yield
    finally:
        system.proxy.restore()


Fault = Callable[[System, int], AbstractContextManager[None]]


@pytest.mark.parametrize("fault", [killed, terminated, frozen, unloaded, erring, cut_off])
def test_fault_of_one_of_two_tritons_loses_no_photograph(
    system: System, small: bytes, fault: Fault, long: bool
) -> None:
    """And the Triton is used again within seconds of its return."""
    with Load(system.urls, small, RATE) as load:
        time.sleep(1)
        with fault(system, 1):
            time.sleep(20 if long else 3)
        began = time.monotonic()
        before = system.tritons[1].count_photographs()
        while system.tritons[1].count_photographs() <= before:
            assert time.monotonic() - began < (BACK if fault is not erring else 2 * BACK)
            time.sleep(0.1)
        back = time.monotonic() - began
        time.sleep(0.5)
    slowest = max(outcome.seconds for outcome in load.outcomes)
    print(f"\n{fault.__name__}: {load.counts}, slowest {slowest:.2f} s, back in {back:.1f} s")
    assert load.counts == {"ok": len(load.outcomes)}, set(map(str, load.errors))


@pytest.mark.parametrize("fault", [killed, frozen, unloaded, erring])
def test_missing_triton_is_reported_until_it_returns(
    system: System, small: bytes, fault: Fault, long: bool
) -> None:
    """A clean 503 with Retry-After, and pictures again within seconds of the return.

    Until it is known that a server is frozen, those beyond the limit are refused with 429.
    """
    with Load(system.urls, small, RATE, timeout=20) as load:
        with fault(system, 1), contextlib.ExitStack() as first:
            first.enter_context(fault(system, 0))
            load.wait_for(lambda outcome: outcome.name == "Unavailable")
            time.sleep(5 if long else 1)
            answer = httpx.post(f"{system.server.http_url}/v1/colorize", content=small, timeout=20)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["type"] == "urn:rehue:problem:unavailable"
            first.close()
            back = load.wait_for(lambda outcome: outcome.error is None)
        time.sleep(0.5)
    print(f"\nall {fault.__name__}: {load.counts}, back in {back:.1f} s")
    assert back < BACK
    assert load.counts.keys() <= {"ok", "Unavailable", *({"Overloaded"} if fault is frozen else ())}
    assert all(error.retry_after for error in load.errors), set(map(str, load.errors))


def test_killed_replica_loses_no_photograph(system: System, small: bytes) -> None:
    """The SDK retries the requests in flight; no other retries are needed."""
    before = system.list_replicas()
    with Load(system.urls, small, RATE, retries=Retries()) as load:
        time.sleep(1)
        os.kill(min(before), signal.SIGKILL)
        wait_until(lambda: len(system.list_replicas() - {min(before)}) == 2)
        time.sleep(1)
    print(f"\nreplica killed: {load.counts}")
    assert load.counts == {"ok": len(load.outcomes)}, set(map(str, load.errors))


REDEPLOY = """
import os, sys
import ray
from ray import serve
ray.init(address=sys.argv[1], log_to_driver=False)
from rehue_serve import app, settings
serve.run(app.build_application(settings.load_settings()), name=app.NAME, route_prefix="/")
"""


def test_redeployment_loses_no_photograph(system: System, small: bytes) -> None:
    """Every replica is replaced under load."""
    before = system.list_replicas()
    (gcs,) = system.list_processes("gcs_server ")
    (port,) = {
        connection.laddr.port
        for connection in gcs.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    settings = {"REHUE_REPLICAS": "2", "REHUE_MAX_REQUESTS": "32"}
    with Load(system.urls, small, RATE, retries=Retries()) as load:
        subprocess.run(
            [sys.executable, "-c", REDEPLOY, f"127.0.0.1:{port}"],
            env=os.environ | system.environment | settings | {"RAY_SERVE_ENABLE_HA_PROXY": "1"},
            capture_output=True,
            check=True,
            timeout=120,
        )
        wait_until(lambda: not before & system.list_replicas())
        time.sleep(1)
    print(f"\nredeployed: {load.counts}")
    assert len(system.list_replicas()) == 2
    assert load.counts == {"ok": len(load.outcomes)}, set(map(str, load.errors))


def test_overload_is_refused_without_loss_of_goodput(
    system: System, small: bytes, long: bool
) -> None:
    """At twice the Tritons' capacity, as many pictures are answered as at capacity.

    Figures are printed. It measures speed, so it belongs to the long form alone.
    """
    if not long:
        pytest.skip("measures speed: make test-faults")
    for triton in system.tritons:
        triton.set_batch_seconds(0.25)  # eight photographs: 64 a second in all
    seconds = 20
    try:
        peak, _ = measure_goodput(system.urls, small, rate=64 * 1.05, seconds=seconds)
        memory = sum(process.memory_info().rss for process in system.list_processes())
        good, load = measure_goodput(system.urls, small, rate=64 * 2, seconds=seconds)
        grown = sum(process.memory_info().rss for process in system.list_processes()) - memory
    finally:
        for triton in system.tritons:
            triton.set_batch_seconds()
    refused = sorted(outcome.seconds for outcome in load.outcomes if outcome.error)
    accepted = sorted(outcome.seconds for outcome in load.outcomes if not outcome.error)
    late, bound = refused[int(0.99 * len(refused))], accepted[int(0.99 * len(accepted))]
    print(
        f"\noverload: peak {peak:.1f}/s, goodput {good:.1f}/s ({good / peak:.2f}), "
        f"{len(refused)} refused, p50 {refused[len(refused) // 2] * 1000:.0f} ms, "
        f"p99 {late * 1000:.0f} ms, accepted p99 {bound:.2f} s, memory {grown / 2**20:+.0f} MiB"
    )
    assert load.counts.keys() == {"ok", "Overloaded"}
    assert all(isinstance(error, Overloaded) and error.retry_after for error in load.errors)
    assert bound < 5  # two replicas of 32 photographs at 64 a second, and room to spare
    assert grown < 100 * 2**20
    assert good >= 0.95 * peak
    assert late < 0.1


def wait_until(true: Callable[[], bool], timeout: float = 90.0) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


async def test_slow_call_is_hedged(system: System) -> None:
    """A call to a Triton that became slow is repeated to the other, within the budget."""
    urls = [triton.url for triton in system.tritons]
    endpoints = Endpoints(urls, model="rehue", limit=1)
    client = TritonClient(endpoints, default_model="rehue", hedge=0.9)
    await client.start()
    loop = asyncio.get_running_loop()
    spec = await client.models.get_spec("rehue")
    input = np.zeros((1, spec.height, spec.width), np.uint8)
    try:
        for _ in range(100):  # their durations define a slow call
            await client.infer(spec, input, loop.time() + 30)
        system.tritons[1].set_batch_seconds(3)
        began = loop.time()
        for _ in range(10):
            await client.infer(spec, input, loop.time() + 30)
        assert loop.time() - began < 3
    finally:
        system.tritons[1].set_batch_seconds()
        await client.close()
