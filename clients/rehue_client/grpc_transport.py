"""The gRPC way to one server, with and without asyncio."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from rehue_client import tracing
from rehue_client.errors import (
    BY_REASON,
    DeadlineExceeded,
    ImageTooLarge,
    InvalidParameter,
    Overloaded,
    ProtocolError,
    RehueError,
    Unauthenticated,
    Unavailable,
)
from rehue_client.picture import Model, Options, Picture, Timings
from rehue_client.target import Target, Tls
from rehue_client.v1 import rehue_pb2

COLORIZE = f"/{rehue_pb2.DESCRIPTOR.services_by_name['Colorizer'].full_name}/Colorize"

# grpc.health.v1: an empty request asks for the server as a whole, and this is
# the whole answer of one that serves. No need for its package as a dependency.
HEALTH = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"

CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC lets a channel that failed rest for up to two minutes, and tries a
    # silent address for twenty seconds: retries here would meet a shut door.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Finds a dead connection under a long call; servers count more than two
    # such pings in five minutes as abuse, so none are sent in idle times.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Every client its own connections: several in one process spread their load.
    ("grpc.use_local_subchannel_pool", 1),
]

# What a status means that comes without our details: from a proxy, from gRPC
# itself, or from a server that died under the call.
KINDS: dict[grpc.StatusCode, type[RehueError]] = {
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.ABORTED: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.INTERNAL: Unavailable,
    grpc.StatusCode.UNKNOWN: Unavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: Unauthenticated,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidParameter,
}


class GrpcTransport:
    """Asks one server over gRPC, and waits."""

    def __init__(self, target: Target, *, api_key: str | None, tls: Tls) -> None:
        self._target = target
        self._metadata = _metadata(api_key)
        if target.encrypted:
            self._channel = grpc.secure_channel(
                target.authority, _credentials(tls), CHANNEL_OPTIONS
            )
        else:
            self._channel = grpc.insecure_channel(target.authority, CHANNEL_OPTIONS)
        self._colorize = self._channel.unary_unary(
            COLORIZE,
            request_serializer=rehue_pb2.ColorizeRequest.SerializeToString,
            response_deserializer=rehue_pb2.ColorizeResponse.FromString,
        )
        self._health = self._channel.unary_unary(HEALTH, bytes, bytes)

    def colorize(self, image: bytes, options: Options, *, timeout: float | None) -> Picture:
        try:
            answer = self._colorize(
                _request(image, options), timeout=timeout, metadata=_traced(self._metadata)
            )
        except grpc.RpcError as error:
            raise _error(error, self._target) from error
        return _picture(answer)

    def ready(self, *, timeout: float | None) -> bool:
        try:
            return self._health(b"", timeout=timeout, metadata=self._metadata) == SERVING
        except grpc.RpcError as error:
            raise _error(error, self._target) from error

    def models(self, *, timeout: float | None) -> list[Model]:  # noqa: ARG002 (as over HTTP)
        raise _no_list(self._target)

    def close(self) -> None:
        self._channel.close()


class AsyncGrpcTransport:
    """Asks one server over gRPC from an event loop, the one that made it."""

    def __init__(self, target: Target, *, api_key: str | None, tls: Tls) -> None:
        self._target = target
        self._metadata = _metadata(api_key)
        if target.encrypted:
            self._channel = grpc.aio.secure_channel(
                target.authority, _credentials(tls), CHANNEL_OPTIONS
            )
        else:
            self._channel = grpc.aio.insecure_channel(target.authority, CHANNEL_OPTIONS)
        self._colorize = self._channel.unary_unary(
            COLORIZE,
            request_serializer=rehue_pb2.ColorizeRequest.SerializeToString,
            response_deserializer=rehue_pb2.ColorizeResponse.FromString,
        )
        self._health = self._channel.unary_unary(HEALTH, bytes, bytes)

    async def colorize(self, image: bytes, options: Options, *, timeout: float | None) -> Picture:
        try:
            answer = await self._colorize(
                _request(image, options), timeout=timeout, metadata=_traced(self._metadata)
            )
        except grpc.RpcError as error:
            raise _error(error, self._target) from error
        return _picture(answer)

    async def ready(self, *, timeout: float | None) -> bool:
        try:
            return await self._health(b"", timeout=timeout, metadata=self._metadata) == SERVING
        except grpc.RpcError as error:
            raise _error(error, self._target) from error

    async def models(self, *, timeout: float | None) -> list[Model]:  # noqa: ARG002 (as over HTTP)
        raise _no_list(self._target)

    async def close(self) -> None:
        await self._channel.close()


def _no_list(target: Target) -> ProtocolError:
    return ProtocolError(f"{target}: models are listed over HTTP; give an http:// address")


def _metadata(api_key: str | None) -> tuple[tuple[str, str | bytes], ...]:
    return (("authorization", f"Bearer {api_key}"),) if api_key else ()


def _traced(
    metadata: tuple[tuple[str, str | bytes], ...],
) -> tuple[tuple[str, str | bytes], ...]:
    return (*metadata, *tracing.headers().items())


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    ca, key, certificate = (
        Path(path).read_bytes() if path else None for path in (tls.ca, tls.key, tls.certificate)
    )
    return grpc.ssl_channel_credentials(ca, key, certificate)


def _request(image: bytes, options: Options) -> rehue_pb2.ColorizeRequest:
    return rehue_pb2.ColorizeRequest(
        image=image,
        model=options.model,
        strength=options.strength,
        format=f"FORMAT_{options.format.upper()}",
        quality=options.quality,
    )


def _picture(answer: rehue_pb2.ColorizeResponse) -> Picture:
    stages = {stage.name: value for stage, value in answer.timings.ListFields()}
    return Picture(
        data=answer.image,
        media_type=answer.media_type,
        model=answer.model,
        request_id=answer.request_id,
        timings=Timings.of(stages),
    )


def _error(error: grpc.RpcError, target: Target) -> RehueError:
    status = _status(error.trailing_metadata() or ())
    if status is not None:
        info, delay = _details(status)
        if info.domain == "rehue" and info.reason in BY_REASON:
            return BY_REASON[info.reason](
                status.message,
                request_id=info.metadata.get("request_id"),
                retry_after=delay,
            )
    text = error.details() or "no reason given"
    # gRPC's own words for a message over the server's limit; it has no code for it.
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "message larger than max" in text:
        return ImageTooLarge(text)
    kind = KINDS.get(error.code(), ProtocolError)
    return kind(f"{target}: {text} ({error.code().name})")


def _status(metadata: Iterable[Any]) -> status_pb2.Status | None:
    """The status in trailing metadata: pairs of a key and a text or bytes."""
    for key, value in metadata:
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def _details(status: status_pb2.Status) -> tuple[error_details_pb2.ErrorInfo, float | None]:
    """The reason and the seconds to wait, as far as the status holds them."""
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    delay = None
    for detail in status.details:
        detail.Unpack(info)
        if detail.Unpack(retry):
            delay = retry.retry_delay.ToMilliseconds() / 1000
    return info, delay
