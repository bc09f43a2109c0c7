"""The synchronous client."""

import functools
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

from rehue_client import tracing
from rehue_client.edits import Edits, read_reference
from rehue_client.errors import DeadlineExceeded, RehueError, ServiceError
from rehue_client.http_transport import HttpTransport
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
    from rehue_client.grpc_transport import GrpcTransport

T = TypeVar("T")
Transport: TypeAlias = "GrpcTransport | HttpTransport"


class Client(Session[Target, Transport]):
    """Synchronous client of one or several Rehue servers.

    Thread-safe.

    Args:
        targets: ``grpc://``, ``grpcs://``, ``http://`` or ``https://`` addresses.
            Of several, the one with the fewest requests in flight is used, and
            another one if it fails. Default: those in REHUE_SERVER, separated by
            commas, or ``grpc://127.0.0.1:9000``; ``http://127.0.0.1:8000`` where grpcio
            is not installed.
        api_key: for servers that require one. Default: REHUE_API_KEY.
        timeout: seconds for one photograph, retries and pauses included; None or
            `math.inf`: no limit. The default outlasts a restart of the server.
        retries: how long and how often a call is retried, and with which pauses.
        tls: certificates for ``grpcs://`` and ``https://``.
        max_bytes: size limit of an encoded photograph. Larger files are not read.
        bytes_in_flight: photographs that the client reads or encodes wait until those in
            flight leave room for them. A larger one waits until it is alone; the timeout
            begins afterwards. Pictures are not counted.

    Raises:
        ValueError: an address, the key, the timeout or a limit is not valid.

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
        metadata: str = "keep",
        depth: str = "auto",
        profile: str = "srgb",
        mark: str = "none",
        edits: Edits | None = None,
        timeout: float | None = None,
    ) -> Picture:
        """Colorize one photograph.

        Args:
            source: a path, an encoded image (any bytes-like object), a file opened in
                binary mode, a Pillow image, or an array (NumPy and alike) of uint8 or
                uint16 with shape (H, W) or (H, W, 1 to 4). Arrays and Pillow images
                are sent as PNG.
            model: name of the model; None for the server's default.
            strength: factor on chroma, 0 to 2.
            format: ``jpeg``, ``png``, ``webp``, ``tiff``, or ``auto``: that of the
                source, or one near it for formats that are only read.
            quality: of JPEG and WebP, 1 to 100; None for the server's default.
            metadata: ``keep``, or ``none`` to strip EXIF, IPTC, XMP and resolution.
            depth: ``auto``: 16 bits for a photograph of more than 8 where the format can; or ``8``.
            profile: ``srgb``, or ``keep``: colours in the photograph's own RGB profile.
            mark: ``none``, or ``visible``: a small mark in the picture's corner.
            edits: a person's choices: warmth, tint, hints, a palette or a reference.
            timeout: seconds, retries included; None for the client's default.

        Raises:
            RehueError: a subclass listed in `rehue_client.errors`.
            TypeError: ``source`` has an unsupported type.
        """
        options = Options(
            model=model, strength=strength, format=format, quality=quality, metadata=metadata,
            depth=depth, profile=profile, mark=mark, edits=read_reference(edits, self._max_bytes),
        )  # fmt: skip
        with self._hold_source(source):
            image = read_source(source, self._max_bytes)
            return self._colorize_bytes(image, options, timeout)

    def colorize_many(
        self,
        sources: Iterable[Source | tuple[Any, Source]],
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
    ) -> Generator[Result, None, None]:
        """Colorize any number of photographs; yield results in order of completion.

        An item of ``sources`` is a source, or a pair of a key and a source; the key
        is returned in the result. A source that cannot be read or colorized is a
        result with an ``error`` and does not stop the others.

        ``sources`` is consumed lazily: at most ``concurrency`` photographs are in
        flight or waiting to be yielded. ``timeout`` applies to each photograph. If
        you stop iterating early, closing the generator waits for requests in flight.

        Each photograph is one unary call, not an item of a stream: a stream is bound
        to one server and fails with it, but calls are spread over all servers and
        retried one by one.
        """
        options = Options(
            model=model, strength=strength, format=format, quality=quality, metadata=metadata,
            depth=depth, profile=profile, mark=mark, edits=read_reference(edits, self._max_bytes),
        )  # fmt: skip
        check_many(sources, concurrency)
        return self._yield_results(sources, concurrency, options, timeout)

    def candidates(
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
        """Return several versions of one photograph to choose from; they differ visibly.

        The first one is the one that was asked for. To get a version in full, pass its
        ``strength`` and ``edits`` to `colorize`.

        Args:
            source: see `colorize`; so for the other arguments.
            size: pixels on the long side of each version, 64 to 2048.
            more_looks: propose versions of the other looks too (see `Edits`), which are up to
                five more runs of the network.

        Raises:
            RehueError: see `colorize`.
            TypeError: ``source`` has an unsupported type.
        """
        edits = read_reference(edits, self._max_bytes)
        options = CandidateOptions(
            model=model, strength=strength, edits=edits, size=size, more_looks=more_looks
        )
        with self._hold_source(source), tracing.start_span("rehue.candidates"):
            image = read_source(source, self._max_bytes)
            return self._send_with_retries(
                self._start_call(timeout),
                lambda transport, remaining: transport.candidates(
                    image, options, timeout=remaining
                ),
            )

    def models(self, *, timeout: float | None = None) -> list[Model]:
        """List the models of the server."""
        return self._send_with_retries(
            self._start_call(timeout),
            lambda transport, remaining: transport.models(timeout=remaining),
        )

    def ready(self, *, timeout: float = 5.0) -> bool:
        """Return whether at least one server is ready; each is asked once."""
        return any(self._check_ready(target, timeout) for target in self._targets)

    def close(self) -> None:
        """Close the connections. The client cannot be used afterwards."""
        for transport in self._remove_transports().values():
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
        if not target.uses_grpc:
            return HttpTransport(target, api_key=self._api_key, tls=self._tls)
        # Imported here: the package grpcio is an extra.
        from rehue_client.grpc_transport import GrpcTransport

        return GrpcTransport(target, api_key=self._api_key, tls=self._tls)

    def _send_with_retries(self, call: Call, send: Callable[[Transport, float | None], T]) -> T:
        while True:
            with call.start_attempt() as endpoint:
                transport = self._get_transport(endpoint.target, endpoint.target)
                return send(transport, call.get_remaining())
            time.sleep(call.pause)

    def _hold_source(self, source: Source) -> AbstractContextManager[None]:
        return self._memory.hold(measure_source(source, self._max_bytes))

    def _colorize_bytes(self, image: bytes, options: Options, timeout: float | None) -> Picture:
        with tracing.start_span("rehue.colorize"):
            return self._send_with_retries(
                self._start_call(timeout),
                lambda transport, remaining: transport.colorize(image, options, timeout=remaining),
            )

    def _colorize_item(
        self, item: Source | tuple[Any, Source], options: Options, timeout: float | None
    ) -> Result:
        key, source = split_item(item)
        try:
            with self._hold_source(source):
                image = read_result_source(source, self._max_bytes)
                picture = self._colorize_bytes(image, options, timeout)
        except RehueError as error:
            return Result(key=key, source=source, error=error)
        return Result(key=key, source=source, picture=picture)

    def _yield_results(
        self,
        sources: Iterable[Source | tuple[Any, Source]],
        concurrency: int,
        options: Options,
        timeout: float | None,
    ) -> Generator[Result, None, None]:
        pending: set[Future[Result]] = set()
        try:
            for item in sources:
                work = functools.partial(self._colorize_item, item, options, timeout)
                pending.add(start_daemon_thread(work))
                wait_seconds = None if len(pending) >= concurrency else 0
                done, pending = wait(pending, wait_seconds, FIRST_COMPLETED)
                yield from (future.result() for future in done)
            while pending:
                done, pending = wait(pending, None, FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except KeyboardInterrupt:
            pending.clear()  # do not wait: a source that blocks would prevent the exit
            raise
        finally:
            wait(pending)

    def _check_ready(self, target: Target, timeout: float) -> bool:
        try:
            return self._get_transport(target, target).ready(timeout=normalize_timeout(timeout))
        except (ServiceError, DeadlineExceeded):
            return False
