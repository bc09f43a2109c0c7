"""The synchronous client."""

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
from rehue_client.picture import Model, Options, Picture, Result
from rehue_client.retries import Call
from rehue_client.session import Session
from rehue_client.sources import Source, read_source
from rehue_client.target import Target

T = TypeVar("T")
Transport = GrpcTransport | HttpTransport


class Client(Session[Transport]):
    """Synchronous client of one or several Rehue servers.

    Thread-safe. The arguments are those of `Session`.

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
        """Colorize one photograph.

        Args:
            source: a path, the encoded image as bytes, or a binary file open for reading.
            model: name of the model; None for the server's default.
            strength: factor on chroma, 0 to 2.
            format: ``jpeg``, ``png``, ``webp``, ``tiff``, or ``auto``: that of the
                source.
            quality: of JPEG and WebP, 1 to 100; None for the server's default.
            timeout: seconds, retries included; None for the client's default.

        Raises:
            RehueError: a subclass listed in `rehue_client.errors`.
        """
        options = Options(model=model, strength=strength, format=format, quality=quality)
        return self._colorize_bytes(read_source(source), options, timeout)

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
        """Colorize any number of photographs; yield results in order of completion.

        ``sources`` is consumed lazily: at most ``concurrency`` photographs are in
        flight or waiting to be yielded. ``timeout`` applies to each photograph. If
        you stop iterating early, closing the generator waits for requests in flight.

        Each photograph is one unary call, not an item of a stream: a stream is bound
        to one server and fails with it, but calls are spread over all servers and
        retried one by one.
        """
        options = Options(model=model, strength=strength, format=format, quality=quality)
        pool = ThreadPoolExecutor(concurrency, thread_name_prefix="rehue")
        return self._yield_results(pool, sources, concurrency, options, timeout)

    def models(self, *, timeout: float | None = None) -> list[Model]:
        """List the models of the server; needs an HTTP target."""
        return self._send_with_retries(
            self._start_listing(timeout),
            lambda transport, remaining: transport.models(timeout=remaining),
        )

    def ready(self, *, timeout: float = 5.0) -> bool:
        """Return whether at least one server is ready; each is asked once."""
        return any(self._check_ready(target, timeout) for target in self._targets)

    def close(self) -> None:
        for transport in self._remove_transports():
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
        kind = GrpcTransport if target.uses_grpc else HttpTransport
        return kind(target, api_key=self._api_key, tls=self._tls)

    def _send_with_retries(self, call: Call, send: Callable[[Transport, float | None], T]) -> T:
        while True:
            with call.start_attempt() as endpoint:
                return send(self._get_transport(endpoint.target), call.get_remaining())
            time.sleep(call.pause)

    def _colorize_bytes(self, image: bytes, options: Options, timeout: float | None) -> Picture:
        with tracing.start_span("rehue.colorize"):
            return self._send_with_retries(
                self._start_call(timeout),
                lambda transport, remaining: transport.colorize(image, options, timeout=remaining),
            )

    def _colorize_one(self, source: Source, options: Options, timeout: float | None) -> Result:
        try:
            picture = self._colorize_bytes(read_source(source), options, timeout)
        except RehueError as error:
            return Result(source=source, error=error)
        return Result(source=source, picture=picture)

    def _yield_results(
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
                # Run in the caller's context, which holds the caller's span.
                work = contextvars.copy_context().run
                pending.add(pool.submit(work, self._colorize_one, source, options, timeout))
                wait_seconds = None if len(pending) >= concurrency else 0
                done, pending = wait(pending, wait_seconds, FIRST_COMPLETED)
                yield from (future.result() for future in done)
            while pending:
                done, pending = wait(pending, None, FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            pool.shutdown(cancel_futures=True)

    def _check_ready(self, target: Target, timeout: float) -> bool:
        try:
            return self._get_transport(target).ready(timeout=timeout)
        except (ServiceError, DeadlineExceeded):
            return False
