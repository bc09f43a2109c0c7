"""The client that waits: `Client`."""

import contextvars
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self, TypeVar

from rehue_client import tracing
from rehue_client.errors import DeadlineExceeded, RehueError, ServiceError
from rehue_client.grpc_transport import GrpcTransport
from rehue_client.http_transport import HttpTransport
from rehue_client.picture import Model, Options, Picture, Result, Source, read
from rehue_client.retries import Call
from rehue_client.session import Session
from rehue_client.target import Target

T = TypeVar("T")
Transport = GrpcTransport | HttpTransport


class Client(Session[Transport]):
    """Colorizes photographs on one server, or on the best of several.

    Safe to use from several threads. The arguments are `Session`'s.

    >>> with Client("grpc://127.0.0.1:9000") as client:
    ...     client.colorize("1912.jpg").save("1912-colour.jpg")
    """

    def colorize(
        self,
        source: Source,
        *,
        model: str | None = None,
        strength: float = 1.0,
        format: str = "auto",
        quality: int | None = None,
        timeout: float | None = None,
    ) -> Picture:
        """One photograph in colour.

        Args:
            source: a path, the encoded image itself, or an open binary file.
            model: name of the model; None for the server's default.
            strength: scales chroma, 0 to 2.
            format: ``jpeg``, ``png``, ``webp``, ``tiff``, or ``auto``, as the input.
            quality: of lossy formats, 1 to 100; None for the server's default.
            timeout: seconds in all; None for the client's own.

        Raises:
            RehueError: as drawn in `rehue_client.errors`.
        """
        options = Options(model=model, strength=strength, format=format, quality=quality)
        return self._colorize(read(source), options, timeout)

    def colorize_many(
        self,
        sources: Iterable[Source],
        *,
        concurrency: int = 8,
        model: str | None = None,
        strength: float = 1.0,
        format: str = "auto",
        quality: int | None = None,
        timeout: float | None = None,
    ) -> Generator[Result, None, None]:
        """Results as they come, for any number of photographs.

        ``sources`` is read only as fast as there is room: at most ``concurrency``
        photographs are under way or wait to be taken. ``timeout`` is for each.
        Who stops early waits for those under way.

        Each photograph is a call of its own rather than an item of one stream: a
        stream lives on one server and dies with it, while calls are spread over
        all servers and are retried one by one.
        """
        options = Options(model=model, strength=strength, format=format, quality=quality)
        pool = ThreadPoolExecutor(concurrency, thread_name_prefix="rehue")
        return self._many(pool, sources, concurrency, options, timeout)

    def models(self, *, timeout: float | None = None) -> list[Model]:
        """The models on offer; needs an HTTP target."""
        return self._repeat(
            self._listing(timeout), lambda transport, left: transport.models(timeout=left)
        )

    def ready(self, *, timeout: float = 5.0) -> bool:
        """Whether one of the servers is ready to colorize; asks each once."""
        return any(self._is_ready(target, timeout) for target in self._targets)

    def close(self) -> None:
        for transport in self._drain():
            transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _connect(self, target: Target) -> Transport:
        kind = GrpcTransport if target.speaks_grpc else HttpTransport
        return kind(target, api_key=self._api_key, tls=self._tls)

    def _repeat(self, call: Call, send: Callable[[Transport, float | None], T]) -> T:
        while True:
            with call.attempt() as endpoint:
                return send(self._transport(endpoint.target), call.remaining())
            time.sleep(call.pause)

    def _colorize(self, image: bytes, options: Options, timeout: float | None) -> Picture:
        with tracing.span("rehue.colorize"):
            return self._repeat(
                self._call(timeout),
                lambda transport, left: transport.colorize(image, options, timeout=left),
            )

    def _result(self, source: Source, options: Options, timeout: float | None) -> Result:
        try:
            picture = self._colorize(read(source), options, timeout)
        except RehueError as error:
            return Result(source=source, error=error)
        return Result(source=source, picture=picture)

    def _many(
        self,
        pool: ThreadPoolExecutor,
        sources: Iterable[Source],
        concurrency: int,
        options: Options,
        timeout: float | None,
    ) -> Generator[Result, None, None]:
        pending: set[Future[Result]] = set()
        try:
            for source in sources:
                # In the caller's context, which holds the caller's span.
                work = contextvars.copy_context().run
                pending.add(pool.submit(work, self._result, source, options, timeout))
                patience = None if len(pending) >= concurrency else 0
                done, pending = wait(pending, patience, FIRST_COMPLETED)
                yield from (future.result() for future in done)
            while pending:
                done, pending = wait(pending, None, FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            pool.shutdown(cancel_futures=True)

    def _is_ready(self, target: Target, timeout: float) -> bool:
        try:
            return self._transport(target).ready(timeout=timeout)
        except (ServiceError, DeadlineExceeded):
            return False
