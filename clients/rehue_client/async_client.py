"""The client for asyncio: `AsyncClient`."""

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
from rehue_client.picture import Model, Options, Picture, Result, Source, read
from rehue_client.retries import Call
from rehue_client.session import Session
from rehue_client.target import Target

T = TypeVar("T")
Transport = AsyncGrpcTransport | AsyncHttpTransport


class AsyncClient(Session[Transport]):
    """`Client` for asyncio: the same words, awaited.

    Belongs to the event loop that first uses it. The arguments are `Session`'s.

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
        """One photograph in colour; see `Client.colorize`."""
        options = Options(model=model, strength=strength, format=format, quality=quality)
        return await self._colorize(source, options, timeout)

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
        """Results as they come; see `Client.colorize_many`.

        Who stops early closes the iterator (`contextlib.aclosing`), which cancels
        the photographs under way.
        """
        if concurrency < 1:
            raise ValueError("concurrency must be at least 1")
        options = Options(model=model, strength=strength, format=format, quality=quality)
        return self._many(sources, concurrency, options, timeout)

    async def models(self, *, timeout: float | None = None) -> list[Model]:
        """The models on offer; needs an HTTP target."""
        return await self._repeat(
            self._listing(timeout), lambda transport, left: transport.models(timeout=left)
        )

    async def ready(self, *, timeout: float = 5.0) -> bool:
        """Whether one of the servers is ready to colorize; asks each once."""
        for target in self._targets:
            if await self._is_ready(target, timeout):
                return True
        return False

    async def close(self) -> None:
        for transport in self._drain():
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
        kind = AsyncGrpcTransport if target.speaks_grpc else AsyncHttpTransport
        return kind(target, api_key=self._api_key, tls=self._tls)

    async def _repeat(
        self, call: Call, send: Callable[[Transport, float | None], Awaitable[T]]
    ) -> T:
        while True:
            with call.attempt() as endpoint:
                return await send(self._transport(endpoint.target), call.remaining())
            await asyncio.sleep(call.pause)

    async def _colorize(self, source: Source, options: Options, timeout: float | None) -> Picture:
        image = source if isinstance(source, bytes) else await asyncio.to_thread(read, source)
        with tracing.span("rehue.colorize"):
            return await self._repeat(
                self._call(timeout),
                lambda transport, left: transport.colorize(image, options, timeout=left),
            )

    async def _result(self, source: Source, options: Options, timeout: float | None) -> Result:
        try:
            picture = await self._colorize(source, options, timeout)
        except RehueError as error:
            return Result(source=source, error=error)
        return Result(source=source, picture=picture)

    async def _many(
        self,
        sources: Iterable[Source] | AsyncIterable[Source],
        concurrency: int,
        options: Options,
        timeout: float | None,
    ) -> AsyncGenerator[Result, None]:
        pending: set[asyncio.Task[Result]] = set()
        try:
            async for source in _each(sources):
                pending.add(asyncio.create_task(self._result(source, options, timeout)))
                patience = None if len(pending) >= concurrency else 0
                done, pending = await _first(pending, patience)
                for task in done:
                    yield task.result()
            while pending:
                done, pending = await _first(pending, None)
                for task in done:
                    yield task.result()
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _is_ready(self, target: Target, timeout: float) -> bool:
        try:
            return await self._transport(target).ready(timeout=timeout)
        except (ServiceError, DeadlineExceeded):
            return False


async def _first(
    pending: set[asyncio.Task[Result]], patience: float | None
) -> tuple[set[asyncio.Task[Result]], set[asyncio.Task[Result]]]:
    """Those that are done and those that are not, as soon as one is done."""
    return await asyncio.wait(pending, timeout=patience, return_when=asyncio.FIRST_COMPLETED)


async def _each(sources: Iterable[Source] | AsyncIterable[Source]) -> AsyncIterator[Source]:
    if isinstance(sources, AsyncIterable):
        async for source in sources:
            yield source
    else:
        for source in sources:
            yield source
