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
    ("grpc.min_reconnect_backoff_ms", 1000),  # for which one try to connect goes on
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),  # so that a new channel is a new connection
]


@dataclass(eq=False)
class Endpoint:
    """One Triton and what is known of it."""

    address: str
    limit: int  # calls under way at most
    healthy: bool = False
    failures: int = 0  # calls in a row that it answered with errors
    away_until: float = 0.0  # loop time; for its errors
    rests_until: float = 0.0  # loop time; for its full queue
    calls: set[asyncio.Future[object]] = field(default_factory=set)
    outstanding: int = 0

    def __post_init__(self) -> None:
        self.connect()

    def connect(self) -> None:
        self.channel = grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)


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
        self._resolver = asyncio.create_task(self._keep_resolving())

    async def close(self) -> None:
        tasks = [*self._probes.values(), *([self._resolver] if self._resolver else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(one.channel.close() for one in self._all.values()))

    def list_all(self) -> list[Endpoint]:
        return list(self._all.values())

    def list_available(self) -> list[Endpoint]:
        """Those that may be asked now.

        Where all answer errors, all may be asked: waiting would help nobody, and so the
        first that is well again is found at once.
        """
        now = asyncio.get_running_loop().time()
        healthy = [one for one in self._all.values() if one.healthy]
        well = [one for one in healthy if now >= one.away_until] or healthy
        return [one for one in well if now >= one.rests_until]

    async def acquire(self) -> Endpoint | None:
        """A place at the available endpoint with the fewest calls under way.

        Waits while all are at their limit. None when no endpoint is healthy.
        """
        while True:
            self._changed.clear()
            if not any(one.healthy for one in self._all.values()):
                return None
            if free := self._free():
                return self._least_busy(free)
            with contextlib.suppress(TimeoutError):
                # The timeout ends rests and ejections, which no event announces.
                await asyncio.wait_for(self._changed.wait(), REST)

    def spare(self, other: Endpoint) -> Endpoint | None:
        """A place at the least busy available endpoint but ``other``, if there is one now."""
        free = [one for one in self._free() if one is not other]
        return self._least_busy(free) if free else None

    def _free(self) -> list[Endpoint]:
        return [one for one in self.list_available() if one.outstanding < one.limit]

    def _least_busy(self, free: list[Endpoint]) -> Endpoint:
        best = min(free, key=lambda one: (one.outstanding, random.random()))
        best.outstanding += 1
        return best

    def release(self, endpoint: Endpoint) -> None:
        endpoint.outstanding -= 1
        self._changed.set()

    def succeeded(self, endpoint: Endpoint) -> None:
        endpoint.failures = 0
        endpoint.away_until = 0.0

    def full(self, endpoint: Endpoint) -> None:
        """Its queue is full: leaves it alone for a moment."""
        endpoint.rests_until = asyncio.get_running_loop().time() + REST

    def erred(self, endpoint: Endpoint, reason: str) -> None:
        """It answers, but with errors: keeps away from it, longer each time."""
        if not endpoint.failures:
            log.error("triton %s answers errors: %s", endpoint.address, reason)
        endpoint.failures = min(endpoint.failures + 1, 16)
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
        new = [Endpoint(address, self._limit) for address in found - self._all.keys()]
        for one in new:
            self._all[one.address] = one
            self._probes[one.address] = asyncio.create_task(self._keep_probing(one))
        # Those that come are ready before others go: a name may change all of its addresses.
        await asyncio.gather(*map(self._probe, new))
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
                await self._reconnect(endpoint)
            metrics.healthy(endpoint.address, endpoint.healthy)

    async def _reconnect(self, endpoint: Endpoint) -> None:
        """A silent connection may be dead: after a cut in the network TCP tries again later
        and later, up to two minutes after the network is back.
        """
        old = endpoint.channel
        endpoint.connect()
        await old.close()

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
