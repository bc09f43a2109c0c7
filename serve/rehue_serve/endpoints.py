"""Tritons: where they are, which of them are well, and which to ask next.

gRPC's own means do not do here: Triton's health service has no Watch, and its
retries stop at a server that says goodbye (tried: 72 of 305 requests failed
when one of two was killed). So every endpoint is probed, ejected as soon as a
call or a probe fails, and let back in when a probe succeeds.
"""

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from rehue_serve import metrics

log = logging.getLogger(__name__)

PROBE_INTERVAL = 0.5  # seconds between two probes of an endpoint
PROBE_TIMEOUT = 2.0  # a frozen server is found after FAILED_PROBES of these
FAILED_PROBES = 2  # in a row; a refused connection counts at once
RESOLVE_INTERVAL = 5.0  # seconds between two look-ups of a name
LONGEST_EJECTION = 5.0  # seconds that a server which answers errors stays away
REST = 0.05  # seconds that a server with a full queue is left alone

CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Back within a second of a server's return; gRPC would wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


@dataclass(eq=False)
class Endpoint:
    """One Triton and what is known of it."""

    address: str
    limit: int  # calls under way at most
    healthy: bool = False
    failures: int = 0  # calls in a row that it answered with errors
    away_until: float = 0.0  # loop time
    calls: set[asyncio.Future[object]] = field(default_factory=set)
    outstanding: int = 0

    def __post_init__(self) -> None:
        self.channel = grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def available(self, now: float) -> bool:
        return self.healthy and now >= self.away_until


class Endpoints:
    """The set of Tritons that serve one default model."""

    def __init__(self, urls: Iterable[str], *, model: str, limit: int) -> None:
        self._urls = tuple(urls)
        self._model = model
        self._limit = limit
        self._all: dict[str, Endpoint] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._resolver: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Resolves and probes once, then goes on in the background."""
        await self._resolve()
        await asyncio.gather(*(self._probe(one) for one in self._all.values()))
        self._resolver = asyncio.create_task(self._keep_resolving())

    async def close(self) -> None:
        tasks = [*self._probes.values(), *([self._resolver] if self._resolver else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(one.channel.close() for one in self._all.values()))

    def all(self) -> list[Endpoint]:
        return list(self._all.values())

    def available(self) -> list[Endpoint]:
        """Those that may be asked now."""
        now = asyncio.get_running_loop().time()
        return [one for one in self._all.values() if one.available(now)]

    async def acquire(self) -> Endpoint | None:
        """A place at the available endpoint with the fewest calls under way.

        Waits while all are at their limit. None when no endpoint is healthy.
        """
        while True:
            self._changed.clear()
            if not any(one.healthy for one in self._all.values()):
                return None
            free = [one for one in self.available() if one.outstanding < one.limit]
            if free:
                best = min(free, key=lambda one: (one.outstanding, random.random()))
                best.outstanding += 1
                return best
            with contextlib.suppress(TimeoutError):
                # The timeout ends rests and ejections, which no event announces.
                await asyncio.wait_for(self._changed.wait(), REST)

    def release(self, endpoint: Endpoint) -> None:
        endpoint.outstanding -= 1
        self._changed.set()

    def succeeded(self, endpoint: Endpoint) -> None:
        endpoint.failures = 0

    def full(self, endpoint: Endpoint) -> None:
        """Its queue is full: leaves it alone for a moment."""
        endpoint.away_until = asyncio.get_running_loop().time() + REST

    def erred(self, endpoint: Endpoint) -> None:
        """It answers, but with errors: keeps away from it, longer each time."""
        endpoint.failures += 1
        pause = min(LONGEST_EJECTION, 0.1 * 2**endpoint.failures)
        endpoint.away_until = asyncio.get_running_loop().time() + pause

    def eject(self, endpoint: Endpoint, reason: str) -> None:
        """It is gone, stopping or frozen: until a probe succeeds, nobody asks it.

        Calls under way are cancelled, so that they can be made elsewhere.
        """
        if endpoint.healthy:
            log.warning("triton %s ejected: %s", endpoint.address, reason)
        endpoint.healthy = False
        for call in list(endpoint.calls):
            call.cancel()
        self._changed.set()

    async def _keep_resolving(self) -> None:
        while True:
            await asyncio.sleep(RESOLVE_INTERVAL)
            await self._resolve()

    async def _resolve(self) -> None:
        found: set[str] = set()
        for url in self._urls:
            if not url.startswith("dns:"):
                found.add(url)
                continue
            try:
                found |= await _look_up(url)
            except OSError as error:
                # A name server's bad moment must not empty the list.
                log.warning("cannot resolve %s: %s", url, error)
                found |= self._all.keys()
        for address in found - self._all.keys():
            self._all[address] = Endpoint(address, self._limit)
            self._probes[address] = asyncio.create_task(self._keep_probing(self._all[address]))
        for address in self._all.keys() - found:
            self._probes.pop(address).cancel()
            gone = self._all.pop(address)
            self.eject(gone, "its name no longer lists it")
            await gone.channel.close()

    async def _keep_probing(self, endpoint: Endpoint) -> None:
        failed = 0
        while True:
            await asyncio.sleep(PROBE_INTERVAL * random.uniform(0.8, 1.2))
            failed = 0 if await self._probe(endpoint) else failed + 1
            if failed >= FAILED_PROBES:
                self.eject(endpoint, "its probes fail")
            metrics.healthy(endpoint.address, endpoint.healthy)

    async def _probe(self, endpoint: Endpoint) -> bool:
        request = service_pb2.ModelReadyRequest(name=self._model)
        try:
            answer = await endpoint.stub.ModelReady(request, timeout=PROBE_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                self.eject(endpoint, error.details() or "unavailable")
            return False
        if not answer.ready:
            self.eject(endpoint, f"model {self._model} is not ready")
            return False
        if not endpoint.healthy:
            log.info("triton %s is ready", endpoint.address)
            endpoint.healthy = True
            self._changed.set()
        return True


async def _look_up(url: str) -> set[str]:
    """The addresses behind ``dns:host:port``."""
    host, _, port = url.removeprefix("dns:").rpartition(":")
    found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    return {
        f"[{where[0]}]:{port}" if family == socket.AF_INET6 else f"{where[0]}:{port}"
        for family, _, _, _, where in found
    }
