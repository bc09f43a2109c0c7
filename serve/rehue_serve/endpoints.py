"""The Tritons: their addresses, their health, and which one to call next.

gRPC's own health checks and retries are not enough: Triton's health service has no Watch, and
gRPC does not retry calls to a server that shuts down (measured: 72 of 305 requests failed when
one of two was killed). So every endpoint is probed, ejected as soon as a call or a probe fails,
and used again when a probe succeeds.
"""

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from rehue_serve import metrics

log = logging.getLogger(__name__)

PROBE_INTERVAL = 0.5  # seconds between two probes of an endpoint
PROBE_TIMEOUT = 2.0  # seconds; FAILED_PROBES of these find a frozen server
FAILED_PROBES = 2  # in a row; a refused connection counts at once
RESOLVE_INTERVAL = 5.0  # seconds between two look-ups of a name
MAX_ERROR_PAUSE = 5.0  # seconds without calls to a server that answers with errors
MAX_ERRORS = 5  # in a row; then the server is ejected until it computes again
FULL_PAUSE = 0.05  # seconds without calls to a server whose queue is full

CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Reconnect within a second of a server's return; gRPC's default is up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),  # also the timeout of one attempt to connect
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),  # so that a new channel is a new connection
]


@dataclass(eq=False)
class Endpoint:
    """One Triton and its state."""

    address: str
    limit: int  # calls in flight at most
    healthy: bool = False
    errors: int = 0  # calls in a row that it answered with errors, up to MAX_ERRORS
    no_calls_before: float = 0.0  # loop time; after errors
    full_until: float = 0.0  # loop time; its queue is full
    calls: set[asyncio.Future[Any]] = field(default_factory=set)  # to cancel on ejection
    in_flight: int = 0  # calls, from `acquire` to `release`

    def __post_init__(self) -> None:
        self.connect()

    def connect(self) -> None:
        self.channel = grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)


class Endpoints:
    """The set of Tritons that serve one default model."""

    def __init__(self, urls: Iterable[str], *, model: str, limit: int) -> None:
        """Create the set; `start` connects it.

        Args:
            urls: ``host:port``, or ``dns:host:port`` for every address of a name.
            model: an endpoint that serves it is healthy.
            limit: calls in flight to one endpoint at most.
        """
        self._urls = tuple(urls)
        self._model = model
        # Whether an endpoint computes. A Triton with a broken CUDA context stays "ready".
        self.check_inference: Callable[[Endpoint], Awaitable[bool]] = _assume_inference
        self._limit = limit
        self._all: dict[str, Endpoint] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._resolver: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Resolve and probe once, then continue in the background."""
        await self._resolve()
        self._resolver = asyncio.create_task(self._keep_resolving())

    async def close(self) -> None:
        tasks = [*self._probes.values(), *([self._resolver] if self._resolver else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(endpoint.channel.close() for endpoint in self._all.values()))

    def list_all(self) -> list[Endpoint]:
        return list(self._all.values())

    def list_available(self) -> list[Endpoint]:
        """Return the endpoints that may be called now.

        If all of them answer with errors, all may be called: waiting would help nobody, and
        the first that recovers is found at once.
        """
        now = asyncio.get_running_loop().time()
        healthy = [endpoint for endpoint in self._all.values() if endpoint.healthy]
        good = [endpoint for endpoint in healthy if now >= endpoint.no_calls_before] or healthy
        return [endpoint for endpoint in good if now >= endpoint.full_until]

    async def acquire(self) -> Endpoint | None:
        """Reserve a call at the available endpoint with the fewest calls in flight.

        Waits while all are at their limit. None if no endpoint is healthy.
        """
        while True:
            self._changed.clear()
            if not any(endpoint.healthy for endpoint in self._all.values()):
                return None
            if candidates := self._list_below_limit():
                return _reserve_least_busy(candidates)
            with contextlib.suppress(TimeoutError):
                # The timeout is for pauses, whose end sets no event.
                await asyncio.wait_for(self._changed.wait(), FULL_PAUSE)

    def try_acquire_other(self, endpoint: Endpoint) -> Endpoint | None:
        """Reserve a call at another endpoint than this one. None if none has capacity now."""
        others = [other for other in self._list_below_limit() if other is not endpoint]
        return _reserve_least_busy(others) if others else None

    def _list_below_limit(self) -> list[Endpoint]:
        return [
            endpoint for endpoint in self.list_available() if endpoint.in_flight < endpoint.limit
        ]

    def release(self, endpoint: Endpoint) -> None:
        """Give back what `acquire` or `try_acquire_other` reserved."""
        endpoint.in_flight -= 1
        self._changed.set()

    def record_success(self, endpoint: Endpoint) -> None:
        endpoint.errors = 0
        endpoint.no_calls_before = 0.0

    def pause(self, endpoint: Endpoint, seconds: float = FULL_PAUSE) -> None:
        """Stop calling an endpoint for a moment, because its queue is full."""
        endpoint.full_until = asyncio.get_running_loop().time() + seconds

    def record_error(self, endpoint: Endpoint, reason: str, *, ejects: bool) -> None:
        """Stop calling an endpoint that answers with errors, longer after each one in a row.

        Args:
            ejects: MAX_ERRORS of them eject it. False for a model that is not the default: its
                fault may be the model's own, and the endpoint still serves the others.
        """
        if not endpoint.errors:
            log.error("triton %s answers with errors: %s", endpoint.address, reason)
        endpoint.errors = min(endpoint.errors + 1, MAX_ERRORS if ejects else MAX_ERRORS - 1)
        pause = min(MAX_ERROR_PAUSE, 0.1 * 2**endpoint.errors)
        endpoint.no_calls_before = asyncio.get_running_loop().time() + pause
        if endpoint.errors == MAX_ERRORS:
            self.eject(endpoint, f"{MAX_ERRORS} errors in a row: {reason}")

    def eject(self, endpoint: Endpoint, reason: str) -> None:
        """Stop calling an endpoint that is gone, frozen or broken, until a probe succeeds.

        Calls in flight are cancelled, so that they can be retried elsewhere.
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
        addresses: set[str] = set()
        for url in self._urls:
            if not url.startswith("dns:"):
                addresses.add(url)
                continue
            try:
                addresses |= await resolve_addresses(url)
            except OSError as error:
                # A name server's failure must not empty the list.
                log.warning("cannot resolve %s: %s", url, error)
                addresses |= self._all.keys()
        added = [Endpoint(address, self._limit) for address in addresses - self._all.keys()]
        for endpoint in added:
            self._all[endpoint.address] = endpoint
            self._probes[endpoint.address] = asyncio.create_task(self._keep_probing(endpoint))
        # Probe new ones before others are removed: a name may change all of its addresses.
        await asyncio.gather(*map(self._probe, added))
        for address in self._all.keys() - addresses:
            self._probes.pop(address).cancel()
            removed = self._all.pop(address)
            self.eject(removed, "its name no longer lists it")
            await removed.channel.close()

    async def _keep_probing(self, endpoint: Endpoint) -> None:
        failed = 0
        while True:
            await asyncio.sleep(PROBE_INTERVAL * random.uniform(0.8, 1.2))
            failed = 0 if await self._probe(endpoint) else failed + 1
            if failed >= FAILED_PROBES:
                self.eject(endpoint, "its probes fail")
                await self._reconnect(endpoint)
            metrics.set_endpoint_health(endpoint.address, endpoint.healthy)

    async def _reconnect(self, endpoint: Endpoint) -> None:
        """Replace a silent connection.

        After a network failure TCP retransmits at growing intervals, so that the old
        connection could stay silent for two minutes after the network is back.
        """
        old = endpoint.channel
        endpoint.connect()
        await old.close()

    async def _probe(self, endpoint: Endpoint) -> bool:
        """Update an endpoint's health; return whether it answers at all."""
        request = service_pb2.ModelReadyRequest(name=self._model)
        try:
            response = await endpoint.stub.ModelReady(request, timeout=PROBE_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                self.eject(endpoint, error.details() or "unavailable")
            return False
        if not response.ready:
            self.eject(endpoint, f"model {self._model} is not ready")
            return False
        if endpoint.errors == MAX_ERRORS:
            if not await self.check_inference(endpoint):
                return True
            self.record_success(endpoint)
        if not endpoint.healthy:
            log.info("triton %s is ready", endpoint.address)
            endpoint.healthy = True
            self._changed.set()
        return True


async def _assume_inference(_: Endpoint) -> bool:
    return True


def _reserve_least_busy(endpoints: list[Endpoint]) -> Endpoint:
    best = min(endpoints, key=lambda endpoint: (endpoint.in_flight, random.random()))
    best.in_flight += 1
    return best


async def resolve_addresses(url: str) -> set[str]:
    """Resolve ``dns:host:port`` to ``address:port`` for every address of the host."""
    host, _, port = url.removeprefix("dns:").rpartition(":")
    results = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    return {
        f"[{address[0]}]:{port}" if family == socket.AF_INET6 else f"{address[0]}:{port}"
        for family, _, _, _, address in results
    }
