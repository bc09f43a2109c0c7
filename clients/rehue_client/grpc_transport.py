"""gRPC connections to one server, synchronous and asynchronous."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from rehue_client import tracing
from rehue_client.choices import CHOICES
from rehue_client.edits import Edits, Hint
from rehue_client.errors import (
    ERRORS_BY_REASON,
    DeadlineExceeded,
    ImageTooLarge,
    InvalidParameter,
    NotServing,
    Overloaded,
    ProtocolError,
    RehueError,
    Unauthenticated,
    Unavailable,
)
from rehue_client.picture import Candidate, Model, Options, Picture, Timings
from rehue_client.proxy import describe_route, is_loopback
from rehue_client.target import Target, Tls
from rehue_client.v1 import rehue_pb2, rehue_pb2_grpc

# grpc.health.v1: an empty request asks about the whole server. These bytes are the
# answer SERVING, so that the package grpcio-health-checking is not needed.
HEALTH = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"

LARGE = 4 * 1024**2  # bytes; larger photographs are sent and answered in chunks
CHUNK = 1024**2  # bytes of a photograph in one message

CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # By default gRPC backs off for up to two minutes after a failed connection and
    # waits twenty seconds for one. Retries in that time would fail at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Detects a dead connection during a long call. Servers treat more than two such
    # pings in five minutes without calls as abuse, so none are sent when idle.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Connections are not shared between the clients of a process, to spread the load.
    ("grpc.use_local_subchannel_pool", 1),
]

# Errors for a status without Rehue's details: from a proxy, from gRPC itself, or
# because the server died during the call.
ERRORS_BY_STATUS: dict[grpc.StatusCode, type[RehueError]] = {
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.ABORTED: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.INTERNAL: Unavailable,
    grpc.StatusCode.UNKNOWN: Unavailable,
    grpc.StatusCode.NOT_FOUND: NotServing,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: Unauthenticated,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidParameter,
}


class GrpcTransport:
    """Synchronous gRPC connection."""

    def __init__(self, target: Target, *, api_key: str | None, tls: Tls) -> None:
        self._route = describe_route(target)
        self._metadata = _build_metadata(api_key)
        options = _get_channel_options(target)
        if target.uses_tls:
            self._channel = grpc.secure_channel(target.authority, _load_credentials(tls), options)
        else:
            self._channel = grpc.insecure_channel(target.authority, options)
        stub = rehue_pb2_grpc.ColorizerStub(self._channel)  # type: ignore[no-untyped-call]
        self._colorize = stub.Colorize
        self._candidates = stub.Candidates
        self._colorize_chunks = stub.ColorizeChunks
        self._list_models = stub.ListModels
        self._health = self._channel.unary_unary(HEALTH, bytes, bytes)

    def colorize(self, image: bytes, options: Options, *, timeout: float | None) -> Picture:
        metadata = _add_trace(self._metadata)
        try:
            if len(image) > LARGE:
                requests = _split_request(image, options)
                return _join_picture(
                    list(self._colorize_chunks(requests, timeout=timeout, metadata=metadata))
                )
            answer = self._colorize(
                _build_request(image, options), timeout=timeout, metadata=metadata
            )
        except grpc.RpcError as error:
            raise _convert_error(error, self._route) from error
        return _parse_picture(answer)

    def candidates(
        self, image: bytes, options: Options, size: int, *, timeout: float | None
    ) -> list[Candidate]:
        try:
            answer = self._candidates(
                _build_candidates_request(image, options, size),
                timeout=timeout,
                metadata=_add_trace(self._metadata),
            )
        except grpc.RpcError as error:
            raise _convert_error(error, self._route) from error
        return [_parse_candidate(candidate) for candidate in answer.candidates]

    def ready(self, *, timeout: float | None) -> bool:
        try:
            return self._health(b"", timeout=timeout, metadata=self._metadata) == SERVING
        except grpc.RpcError as error:
            raise _convert_error(error, self._route) from error

    def models(self, *, timeout: float | None) -> list[Model]:
        try:
            answer = self._list_models(
                rehue_pb2.ListModelsRequest(), timeout=timeout, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise _convert_error(error, self._route) from error
        return _parse_models(answer)

    def close(self) -> None:
        self._channel.close()


class AsyncGrpcTransport:
    """Asynchronous gRPC connection, bound to the event loop that created it."""

    def __init__(self, target: Target, *, api_key: str | None, tls: Tls) -> None:
        self._route = describe_route(target)
        self._metadata = _build_metadata(api_key)
        options = _get_channel_options(target)
        if target.uses_tls:
            self._channel = grpc.aio.secure_channel(
                target.authority, _load_credentials(tls), options
            )
        else:
            self._channel = grpc.aio.insecure_channel(target.authority, options)
        stub = rehue_pb2_grpc.ColorizerStub(self._channel)  # type: ignore[no-untyped-call]
        self._colorize = stub.Colorize
        self._candidates = stub.Candidates
        self._colorize_chunks = stub.ColorizeChunks
        self._list_models = stub.ListModels
        self._health = self._channel.unary_unary(HEALTH, bytes, bytes)

    async def colorize(self, image: bytes, options: Options, *, timeout: float | None) -> Picture:
        metadata = _add_trace(self._metadata)
        try:
            if len(image) > LARGE:
                requests = _split_request(image, options)
                call = self._colorize_chunks(requests, timeout=timeout, metadata=metadata)
                return _join_picture([answer async for answer in call])
            answer = await self._colorize(
                _build_request(image, options), timeout=timeout, metadata=metadata
            )
        except grpc.RpcError as error:
            raise _convert_error(error, self._route) from error
        return _parse_picture(answer)

    async def candidates(
        self, image: bytes, options: Options, size: int, *, timeout: float | None
    ) -> list[Candidate]:
        try:
            answer = await self._candidates(
                _build_candidates_request(image, options, size),
                timeout=timeout,
                metadata=_add_trace(self._metadata),
            )
        except grpc.RpcError as error:
            raise _convert_error(error, self._route) from error
        return [_parse_candidate(candidate) for candidate in answer.candidates]

    async def ready(self, *, timeout: float | None) -> bool:
        try:
            return await self._health(b"", timeout=timeout, metadata=self._metadata) == SERVING
        except grpc.RpcError as error:
            raise _convert_error(error, self._route) from error

    async def models(self, *, timeout: float | None) -> list[Model]:
        try:
            answer = await self._list_models(
                rehue_pb2.ListModelsRequest(), timeout=timeout, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise _convert_error(error, self._route) from error
        return _parse_models(answer)

    async def close(self) -> None:
        await self._channel.close()


def _parse_models(answer: rehue_pb2.ListModelsResponse) -> list[Model]:
    names = [field.name for field in dataclasses.fields(Model)]
    return [Model(**{name: getattr(model, name) for name in names}) for model in answer.models]


def _get_channel_options(target: Target) -> list[tuple[str, Any]]:
    use_proxy = 0 if is_loopback(target.host) else 1
    return [*CHANNEL_OPTIONS, ("grpc.enable_http_proxy", use_proxy)]


def _build_metadata(api_key: str | None) -> tuple[tuple[str, str | bytes], ...]:
    return (("authorization", f"Bearer {api_key}"),) if api_key else ()


def _add_trace(
    metadata: tuple[tuple[str, str | bytes], ...],
) -> tuple[tuple[str, str | bytes], ...]:
    return (*metadata, *tracing.get_trace_headers().items())


def _load_credentials(tls: Tls) -> grpc.ChannelCredentials:
    ca, key, certificate = (
        Path(path).read_bytes() if path else None for path in (tls.ca, tls.key, tls.certificate)
    )
    return grpc.ssl_channel_credentials(ca, key, certificate)


def _build_request(image: bytes, options: Options) -> rehue_pb2.ColorizeRequest:
    return rehue_pb2.ColorizeRequest(
        image=image,
        model=options.model,
        strength=options.strength,
        quality=options.quality,
        **{name: f"{name}_{getattr(options, name)}".upper() for name in CHOICES},
        edits=_build_edits(options.edits),
    )


def _build_candidates_request(
    image: bytes, options: Options, size: int
) -> rehue_pb2.CandidatesRequest:
    return rehue_pb2.CandidatesRequest(
        image=image,
        model=options.model,
        strength=options.strength,
        edits=_build_edits(options.edits),
        size=size,
    )


def _build_edits(edits: Edits) -> rehue_pb2.Edits | None:
    if not edits:
        return None
    return rehue_pb2.Edits(
        warmth=edits.warmth,
        tint=edits.tint,
        hints=[rehue_pb2.Hint(x=hint.x, y=hint.y, color=hint.color) for hint in edits.hints],
        palette=edits.palette,
        reference=cast("bytes", edits.reference),
        palette_strength=edits.palette_strength,
    )


def _parse_candidate(candidate: rehue_pb2.Candidate) -> Candidate:
    edits = candidate.edits
    return Candidate(
        name=candidate.name,
        data=candidate.image,
        strength=round(candidate.strength, 6),
        edits=Edits(
            warmth=edits.warmth,
            tint=edits.tint,
            hints=tuple(Hint(hint.x, hint.y, hint.color) for hint in edits.hints),
            palette=tuple(edits.palette),
            palette_strength=edits.palette_strength,
        ),
    )


def _split_request(image: bytes, options: Options) -> Iterator[rehue_pb2.ColorizeRequest]:
    """Yield the requests of a large photograph; the first has the options."""
    yield _build_request(image[:CHUNK], options)
    for start in range(CHUNK, len(image), CHUNK):
        yield rehue_pb2.ColorizeRequest(image=image[start : start + CHUNK])


def _join_picture(answers: list[rehue_pb2.ColorizeResponse]) -> Picture:
    """Join the chunks of an answer."""
    if not answers:
        raise ProtocolError("the server answered without a picture")
    data = b"".join(answer.image for answer in answers)
    return dataclasses.replace(_parse_picture(answers[0]), data=data)


def _parse_picture(answer: rehue_pb2.ColorizeResponse) -> Picture:
    stages = {stage.name: value for stage, value in answer.timings.ListFields()}
    return Picture(
        data=answer.image,
        media_type=answer.media_type,
        model=answer.model,
        request_id=answer.request_id,
        timings=Timings.from_stages(stages),
        pages=answer.pages or 1,
        frames=answer.frames or 1,
    )


def _convert_error(error: grpc.RpcError, route: str) -> RehueError:
    status = _parse_status(error.trailing_metadata() or ())
    if status is not None:
        info, delay = _parse_details(status)
        if info.domain == "rehue" and info.reason in ERRORS_BY_REASON:
            return ERRORS_BY_REASON[info.reason](
                status.message,
                request_id=info.metadata.get("request_id"),
                retry_after=delay,
            )
    text = error.details() or "no reason given"
    # gRPC's text for a message over the server's limit; there is no code for it.
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "message larger than max" in text:
        return ImageTooLarge(text)
    kind = ERRORS_BY_STATUS.get(error.code(), ProtocolError)
    # gRPC's code for an HTTP 404, as a proxy answers it while the server is starting.
    if error.code() is grpc.StatusCode.UNIMPLEMENTED and "header with status: 404" in text:
        kind = NotServing
    return kind(f"{route}: {text} ({error.code().name})")


def _parse_status(metadata: Iterable[Any]) -> status_pb2.Status | None:
    """Return the google.rpc.Status in trailing metadata (pairs of a key and str or bytes)."""
    for key, value in metadata:
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def _parse_details(status: status_pb2.Status) -> tuple[error_details_pb2.ErrorInfo, float | None]:
    """Return the ErrorInfo and the seconds to wait, as far as the status has them."""
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    delay = None
    for detail in status.details:
        detail.Unpack(info)
        if detail.Unpack(retry):
            delay = retry.retry_delay.ToMilliseconds() / 1000
    return info, delay
