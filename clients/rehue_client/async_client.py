"""The asynchronous client."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
)
from types import TracebackType
from typing import Self, TypeVar

from rehue_client import tracing
from rehue_client.errors import DeadlineExceeded, RehueError, ServiceError
from rehue_client.grpc_transport import AsyncGrpcTransport
from rehue_client.http_transport import AsyncHttpTransport
from rehue_client.picture import Model, Options, Picture, Result
from rehue_client.retries import Call
from rehue_client.session import Session
from rehue_client.sources import Source, read_source
from rehue_client.target import Target

T = TypeVar("T")
Transport = AsyncGrpcTransport | AsyncHttpTransport


class AsyncClient(Session[Transport]):
    """Asynchronous client: the methods of `Client`, awaited.

    Bound to the event loop that first uses it. The arguments are those of `Session`.

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
        timeout: float | None = None,
    ) -> Picture:
        """Colorize one photograph; see `Client.colorize`."""
        options = Options(model=model, strength=strength, format=format, quality=quality)
        return await self._colorize_source(source, options, timeout)

    def colorize_many(
        self,
        sources: Iterable[Source] | AsyncIterable[Source],
        *,
        concurrency: int = 8,
        model: str | None = None,
        strength: float = 1.0,
        format: str = "auto",
        quality: int | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[Result, None]:
        """Colorize any number of photographs; see `Client.colorize_many`.

        If you stop iterating early, close the iterator (`contextlib.aclosing`): that
        cancels the requests in flight.
        """
        if concurrency < 1:
            raise ValueError("concurrency must be at least 1")
        options = Options(model=model, strength=strength, format=format, quality=quality)
        return self._yield_results(sources, concurrency, options, timeout)

    async def models(self, *, timeout: float | None = None) -> list[Model]:
        """List the models of the server; needs an HTTP target."""
        return await self._send_with_retries(
            self._start_listing(timeout),
            lambda transport, remaining: transport.models(timeout=remaining),
        )

    async def ready(self, *, timeout: float = 5.0) -> bool:
        """Return whether at least one server is ready; each is asked once."""
        for target in self._targets:
            if await self._check_ready(target, timeout):
                return True
        return False

    async def close(self) -> None:
        for transport in self._remove_transports():
            await transport.close()

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
        kind = AsyncGrpcTransport if target.uses_grpc else AsyncHttpTransport
        return kind(target, api_key=self._api_key, tls=self._tls)

    async def _send_with_retries(
        self, call: Call, send: Callable[[Transport, float | None], Awaitable[T]]
    ) -> T:
        while True:
            with call.start_attempt() as endpoint:
                return await send(self._get_transport(endpoint.target), call.get_remaining())
            await asyncio.sleep(call.pause)

    async def _colorize_source(
        self, source: Source, options: Options, timeout: float | None
    ) -> Picture:
        image = (
            source if isinstance(source, bytes) else await asyncio.to_thread(read_source, source)
        )
        with tracing.start_span("rehue.colorize"):
            return await self._send_with_retries(
                self._start_call(timeout),
                lambda transport, remaining: transport.colorize(image, options, timeout=remaining),
            )

    async def _colorize_one(
        self, source: Source, options: Options, timeout: float | None
    ) -> Result:
        try:
            picture = await self._colorize_source(source, options, timeout)
        except RehueError as error:
            return Result(source=source, error=error)
        return Result(source=source, picture=picture)

    async def _yield_results(
        self,
        sources: Iterable[Source] | AsyncIterable[Source],
        concurrency: int,
        options: Options,
        timeout: float | None,
    ) -> AsyncGenerator[Result, None]:
        pending: set[asyncio.Task[Result]] = set()
        try:
            async for source in _iterate(sources):
                pending.add(asyncio.create_task(self._colorize_one(source, options, timeout)))
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
            return await self._get_transport(target).ready(timeout=timeout)
        except (ServiceError, DeadlineExceeded):
            return False


async def _wait_for_first(
    pending: set[asyncio.Task[Result]], timeout: float | None
) -> tuple[set[asyncio.Task[Result]], set[asyncio.Task[Result]]]:
    """Wait until one task is done; return the done and the pending ones."""
    return await asyncio.wait(pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


async def _iterate(sources: Iterable[Source] | AsyncIterable[Source]) -> AsyncIterator[Source]:
    if isinstance(sources, AsyncIterable):
        async for source in sources:
            yield source
    else:
        for source in sources:
            yield source
