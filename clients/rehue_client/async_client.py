"""The asynchronous client."""

import asyncio
import contextlib
import functools
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
)
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

from rehue_client import tracing
from rehue_client.edits import NO_EDITS, Edits
from rehue_client.errors import DeadlineExceeded, RehueError, ServiceError
from rehue_client.http_transport import AsyncHttpTransport
from rehue_client.picture import Candidate, CandidateOptions, Model, Options, Picture, Result
from rehue_client.retries import Call
from rehue_client.session import Session, check_many, normalize_timeout
from rehue_client.sources import (
    Source,
    measure_source,
    read_result_source,
    read_source,
    split_item,
)
from rehue_client.target import Target
from rehue_client.threads import start_daemon_thread

if TYPE_CHECKING:
    from rehue_client.grpc_transport import AsyncGrpcTransport

T = TypeVar("T")
Transport: TypeAlias = "AsyncGrpcTransport | AsyncHttpTransport"
LoopKey = tuple[asyncio.AbstractEventLoop, Target]
Items = Iterable[Source | tuple[Any, Source]] | AsyncIterable[Source | tuple[Any, Source]]


class AsyncClient(Session[LoopKey, Transport]):
    """Asynchronous client: the methods of `Client`, awaited.

    The arguments are those of `Client`. May be used in several event loops, one after
    another or in several threads: each has its own connections.

    >>> async with AsyncClient("grpc://127.0.0.1:9000") as client:
    ...     picture = await client.colorize("1912.jpg")
    """

    async def colorize(
        self,
        source: Source,
        *,
        model: str | None = None,
        strength: float = 1.0,
        format: str = "auto",
        quality: int | None = None,
        metadata: str = "keep",
        depth: str = "auto",
        profile: str = "srgb",
        mark: str = "none",
        edits: Edits | None = None,
        timeout: float | None = None,
    ) -> Picture:
        """Colorize one photograph; see `Client.colorize`."""
        options = Options(
            model=model, strength=strength, format=format, quality=quality, metadata=metadata,
            depth=depth, profile=profile, mark=mark, edits=await self._read_reference(edits),
        )  # fmt: skip
        return await self._colorize_source(read_source, source, options, timeout)

    def colorize_many(
        self,
        sources: Items,
        *,
        concurrency: int = 8,
        model: str | None = None,
        strength: float = 1.0,
        format: str = "auto",
        quality: int | None = None,
        metadata: str = "keep",
        depth: str = "auto",
        profile: str = "srgb",
        mark: str = "none",
        edits: Edits | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[Result, None]:
        """Colorize any number of photographs; see `Client.colorize_many`.

        If you stop iterating early, close the iterator (`contextlib.aclosing`): that
        cancels the requests in flight.
        """
        check_many(sources, concurrency)
        options = Options(
            model=model, strength=strength, format=format, quality=quality, metadata=metadata,
            depth=depth, profile=profile, mark=mark, edits=edits or NO_EDITS,
        )  # fmt: skip
        return self._yield_results(sources, concurrency, options, timeout)

    async def candidates(
        self,
        source: Source,
        *,
        model: str | None = None,
        strength: float = 1.0,
        edits: Edits | None = None,
        size: int = 512,
        more_looks: bool = False,
        timeout: float | None = None,
    ) -> list[Candidate]:
        """Return several versions of one photograph; see `Client.candidates`."""
        edits = await self._read_reference(edits)
        options = CandidateOptions(
            model=model, strength=strength, edits=edits, size=size, more_looks=more_looks
        )
        async with self._hold_image(read_source, source) as image:
            with tracing.start_span("rehue.candidates"):
                return await self._send_with_retries(
                    self._start_call(timeout),
                    lambda transport, remaining: transport.candidates(
                        image, options, timeout=remaining
                    ),
                )

    async def models(self, *, timeout: float | None = None) -> list[Model]:
        """List the models of the server."""
        return await self._send_with_retries(
            self._start_call(timeout),
            lambda transport, remaining: transport.models(timeout=remaining),
        )

    async def ready(self, *, timeout: float = 5.0) -> bool:
        """Return whether at least one server is ready; each is asked once."""
        for target in self._targets:
            if await self._check_ready(target, timeout):
                return True
        return False

    async def close(self) -> None:
        """Close the connections. The client cannot be used afterwards."""
        for key, transport in self._remove_transports().items():
            await _close_in_loop(key, transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _connect(self, target: Target) -> Transport:
        if not target.uses_grpc:
            return AsyncHttpTransport(target, api_key=self._api_key, tls=self._tls)
        # Imported here: the package grpcio is an extra.
        from rehue_client.grpc_transport import AsyncGrpcTransport

        return AsyncGrpcTransport(target, api_key=self._api_key, tls=self._tls)

    def _get_loop_transport(self, target: Target) -> Transport:
        """Return the connection of the running event loop to one server."""
        loop = asyncio.get_running_loop()
        with self._lock:
            for key in [key for key in self._transports if key[0].is_closed()]:
                del self._transports[key]
        return self._get_transport((loop, target), target)

    async def _send_with_retries(
        self, call: Call, send: Callable[[Transport, float | None], Awaitable[T]]
    ) -> T:
        while True:
            with call.start_attempt() as endpoint:
                return await send(self._get_loop_transport(endpoint.target), call.get_remaining())
            await asyncio.sleep(call.pause)

    @contextlib.asynccontextmanager
    async def _hold_image(
        self, read: Callable[[Source, int], bytes], source: Source
    ) -> AsyncIterator[bytes]:
        """Read a source when there is room for it, and hold its bytes for the block."""
        async with self._memory.hold_async(await self._read(measure_source, source)):
            yield await self._read(read, source)

    async def _read(self, read: Callable[[Source, int], T], source: Source) -> T:
        work = functools.partial(read, source, self._max_bytes)
        if isinstance(source, bytes):
            return work()
        # In a thread: a slow disk, or encoding an array, would block the event loop.
        return await asyncio.wrap_future(start_daemon_thread(work))

    async def _read_reference(self, edits: Edits | None) -> Edits:
        if edits is None or edits.reference is None:
            return edits or NO_EDITS
        return replace(edits, reference=await self._read(read_source, edits.reference))

    async def _colorize_source(
        self, read: Callable[[Source, int], bytes], source: Source, options: Options,
        timeout: float | None,
    ) -> Picture:  # fmt: skip
        async with self._hold_image(read, source) as image:
            with tracing.start_span("rehue.colorize"):
                return await self._send_with_retries(
                    self._start_call(timeout),
                    lambda transport, remaining: transport.colorize(
                        image, options, timeout=remaining
                    ),
                )

    async def _colorize_item(
        self, item: Source | tuple[Any, Source], options: Options, timeout: float | None
    ) -> Result:
        key, source = split_item(item)
        try:
            picture = await self._colorize_source(read_result_source, source, options, timeout)
        except RehueError as error:
            return Result(key=key, source=source, error=error)
        return Result(key=key, source=source, picture=picture)

    async def _yield_results(
        self,
        sources: Items,
        concurrency: int,
        options: Options,
        timeout: float | None,
    ) -> AsyncGenerator[Result, None]:
        options = replace(options, edits=await self._read_reference(options.edits))
        pending: set[asyncio.Task[Result]] = set()
        try:
            async for item in _iterate(sources):
                pending.add(asyncio.create_task(self._colorize_item(item, options, timeout)))
                wait_seconds = None if len(pending) >= concurrency else 0
                done, pending = await _wait_for_first(pending, wait_seconds)
                for task in done:
                    yield task.result()
            while pending:
                done, pending = await _wait_for_first(pending, None)
                for task in done:
                    yield task.result()
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _check_ready(self, target: Target, timeout: float) -> bool:
        try:
            return await self._get_loop_transport(target).ready(timeout=normalize_timeout(timeout))
        except (ServiceError, DeadlineExceeded):
            return False


async def _wait_for_first(
    pending: set[asyncio.Task[Result]], timeout: float | None
) -> tuple[set[asyncio.Task[Result]], set[asyncio.Task[Result]]]:
    """Wait until one task is done; return the done and the pending ones."""
    return await asyncio.wait(pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


async def _iterate(sources: Items) -> AsyncIterator[Source | tuple[Any, Source]]:
    if isinstance(sources, AsyncIterable):
        async for item in sources:
            yield item
    else:
        for item in sources:
            yield item


async def _close_in_loop(key: LoopKey, transport: Transport) -> None:
    """Close a connection in the event loop that it belongs to.

    The connection of a loop that is no longer running is left to garbage collection.
    """
    loop = key[0]
    if loop is asyncio.get_running_loop():
        await transport.close()
    elif loop.is_running():
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(transport.close(), loop))
