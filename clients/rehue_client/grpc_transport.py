"""gRPC connections to one server, synchronous and asynchronous."""

from pathlib import Path
from typing import Any

import grpc

from rehue_client import tracing
from rehue_client.grpc_messages import (
    ChunkedPicture,
    build_candidates_request,
    build_request,
    convert_error,
    parse_candidate,
    parse_models,
    parse_picture,
    split_request,
)
from rehue_client.picture import Candidate, CandidateOptions, Model, Options, Picture
from rehue_client.proxy import describe_route, is_loopback
from rehue_client.target import Target, Tls
from rehue_client.v1 import rehue_pb2, rehue_pb2_grpc

# grpc.health.v1: an empty request asks about the whole server. These bytes are the
# answer SERVING, so that the package grpcio-health-checking is not needed.
HEALTH = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"

LARGE = 4 * 1024**2  # bytes; larger photographs are sent and answered in chunks

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
                requests = split_request(image, options)
                picture = ChunkedPicture()
                for answer in self._colorize_chunks(requests, timeout=timeout, metadata=metadata):
                    picture.add(answer)
                return picture.join()
            answer = self._colorize(
                build_request(image, options), timeout=timeout, metadata=metadata
            )
        except grpc.RpcError as error:
            raise convert_error(error, self._route) from error
        return parse_picture(answer)

    def candidates(
        self, image: bytes, options: CandidateOptions, *, timeout: float | None
    ) -> list[Candidate]:
        try:
            answer = self._candidates(
                build_candidates_request(image, options),
                timeout=timeout,
                metadata=_add_trace(self._metadata),
            )
        except grpc.RpcError as error:
            raise convert_error(error, self._route) from error
        return [parse_candidate(candidate) for candidate in answer.candidates]

    def ready(self, *, timeout: float | None) -> bool:
        try:
            return self._health(b"", timeout=timeout, metadata=self._metadata) == SERVING
        except grpc.RpcError as error:
            raise convert_error(error, self._route) from error

    def models(self, *, timeout: float | None) -> list[Model]:
        try:
            answer = self._list_models(
                rehue_pb2.ListModelsRequest(), timeout=timeout, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise convert_error(error, self._route) from error
        return parse_models(answer)

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
                requests = split_request(image, options)
                call = self._colorize_chunks(requests, timeout=timeout, metadata=metadata)
                picture = ChunkedPicture()
                async for answer in call:
                    picture.add(answer)
                return picture.join()
            answer = await self._colorize(
                build_request(image, options), timeout=timeout, metadata=metadata
            )
        except grpc.RpcError as error:
            raise convert_error(error, self._route) from error
        return parse_picture(answer)

    async def candidates(
        self, image: bytes, options: CandidateOptions, *, timeout: float | None
    ) -> list[Candidate]:
        try:
            answer = await self._candidates(
                build_candidates_request(image, options),
                timeout=timeout,
                metadata=_add_trace(self._metadata),
            )
        except grpc.RpcError as error:
            raise convert_error(error, self._route) from error
        return [parse_candidate(candidate) for candidate in answer.candidates]

    async def ready(self, *, timeout: float | None) -> bool:
        try:
            return await self._health(b"", timeout=timeout, metadata=self._metadata) == SERVING
        except grpc.RpcError as error:
            raise convert_error(error, self._route) from error

    async def models(self, *, timeout: float | None) -> list[Model]:
        try:
            answer = await self._list_models(
                rehue_pb2.ListModelsRequest(), timeout=timeout, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise convert_error(error, self._route) from error
        return parse_models(answer)

    async def close(self) -> None:
        await self._channel.close()


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
