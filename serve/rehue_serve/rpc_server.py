"""The gRPC server of a replica: the limits on calls and messages before Ray handles them.

Ray's proxies import this module too, for `add_colorizer`.
"""

import asyncio
import contextlib
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from ray.serve._private.constants import DEFAULT_GRPC_SERVER_OPTIONS

from rehue_client.v1 import rehue_pb2
from rehue_serve.errors import ImageTooLarge, InvalidParameter, RehueError
from rehue_serve.observation import observe_request
from rehue_serve.rpc_compression import AS_THEY_COME, decompress, is_compressed
from rehue_serve.rpc_errors import abort_call
from rehue_serve.settings import Settings

if TYPE_CHECKING:
    from rehue_serve.service import Service

LARGEST_IN_ONE_MESSAGE = 32 * 2**20  # bytes of a photograph; larger ones are sent in chunks
MESSAGE_OVERHEAD = 64 * 1024  # bytes that a message may have besides the photograph
STREAM_WINDOW = 16  # photographs of one stream that are received and whose answers are not sent
MESSAGE_LENGTH = "rehue-message-length"  # metadata that `rehue_serve.haproxy` sets
ROUTE = "rehue.v1.Colorizer/Colorize"  # of the span of a call that is refused
MALFORMED = -1  # format, or size, of the request that stands for bytes that cannot be parsed

Unary = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]
Stream = Callable[[AsyncIterator[Any], grpc.aio.ServicerContext[Any, Any]], AsyncIterator[Any]]

# One thread: each message takes up to twice the limit while it is decompressed.
_DECOMPRESSION = ThreadPoolExecutor(1, "decompression")
_service: "Service | None" = None  # of this process, where it is a replica


def configure_server(service: "Service") -> None:
    """Set the limits of this process's gRPC server. Call it before Ray starts the server.

    Ray's own setting, RAY_SERVE_GRPC_MAX_MESSAGE_SIZE, limits answers too, and those may be
    larger: the largest photograph as TIFF takes 150 MB.
    """
    global _service
    _service = service
    limit = ("grpc.max_receive_message_length", _compute_message_limit(service.settings))
    ours = (limit[0], AS_THEY_COME[0])
    others = [option for option in DEFAULT_GRPC_SERVER_OPTIONS if option[0] not in ours]
    DEFAULT_GRPC_SERVER_OPTIONS[:] = [*others, limit, AS_THEY_COME]


def _compute_message_limit(settings: Settings) -> int:
    """Return the limit of a message in bytes, as it comes and decompressed.

    Above it gRPC ends a call without telling the handler why. So it is twice what a message may
    have: most photographs that are too large get our error.
    """
    return 2 * min(settings.byte_limit, LARGEST_IN_ONE_MESSAGE) + MESSAGE_OVERHEAD


def add_colorizer(servicer: Any, server: grpc.aio.Server) -> None:
    """Register the Colorizer service.

    Like the generated function, with two differences. Malformed messages are answered with
    INVALID_ARGUMENT; gRPC itself would answer UNKNOWN, which blames the server. And calls pass
    `_LimitedHandlers` first.
    """
    serialize = rehue_pb2.ColorizeResponse.SerializeToString
    handlers = {
        "Colorize": grpc.unary_unary_rpc_method_handler(
            servicer.Colorize, _parse_request, serialize
        ),
        "ColorizeStream": grpc.stream_stream_rpc_method_handler(
            servicer.ColorizeStream, _parse_request, serialize
        ),
        "Candidates": grpc.unary_unary_rpc_method_handler(
            servicer.Candidates,
            _parse_candidates_request,
            rehue_pb2.CandidatesResponse.SerializeToString,
        ),
        "ColorizeChunks": grpc.stream_stream_rpc_method_handler(
            servicer.ColorizeChunks, _parse_request, serialize
        ),
        "ListModels": grpc.unary_unary_rpc_method_handler(
            servicer.ListModels,
            rehue_pb2.ListModelsRequest.FromString,
            rehue_pb2.ListModelsResponse.SerializeToString,
        ),
    }
    name = rehue_pb2.DESCRIPTOR.services_by_name["Colorizer"].full_name
    methods = {f"/{name}/{method}": handler for method, handler in handlers.items()}
    server.add_generic_rpc_handlers((_LimitedHandlers(methods),))


def _parse_request(data: bytes) -> rehue_pb2.ColorizeRequest:
    try:
        return rehue_pb2.ColorizeRequest.FromString(data)
    except DecodeError:
        return rehue_pb2.ColorizeRequest(format=MALFORMED)  # type: ignore[arg-type]


def _parse_candidates_request(data: bytes) -> rehue_pb2.CandidatesRequest:
    try:
        return rehue_pb2.CandidatesRequest.FromString(data)
    except DecodeError:
        return rehue_pb2.CandidatesRequest(size=MALFORMED)


class _LimitedHandlers(grpc.GenericRpcHandler):
    """Checks the key before a message is received, and receives it within limits."""

    def __init__(self, method_handlers: dict[str, Any]) -> None:
        self._method_handlers = method_handlers  # the name that Ray reads, and replaces

    def service(self, handler_call_details: Any) -> Any:
        handler = self._method_handlers.get(handler_call_details.method)
        if handler is None or _service is None:
            return handler
        if handler.request_streaming:
            # A photograph in chunks is answered once all of them are received.
            is_chunks = handler_call_details.method.endswith("/ColorizeChunks")
            window = sys.maxsize if is_chunks else STREAM_WINDOW
            limited = _limit_stream(_service, handler, window)
            return handler._replace(request_deserializer=None, stream_stream=limited)
        # As streams of one message: the handler runs before the request is received, and until
        # the answer is sent.
        return grpc.stream_stream_rpc_method_handler(
            _limit_unary(_service, handler),
            None,
            handler.response_serializer,
        )


def _limit_unary(service: "Service", handler: Any) -> Stream:
    call: Unary = handler.unary_unary

    async def receive_and_call(
        messages: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[Any]:
        request_id = uuid.uuid4().hex
        try:
            request = handler.request_deserializer(
                await _receive_message(service, messages, context, request_id)
            )
        except RehueError as error:
            await abort_call(context, error, request_id)
        answer = await call(request, context)
        if context.code() in (None, grpc.StatusCode.OK):
            with service.receiving.send(len(answer)):
                yield answer  # returns when the client has read all but the last 64 kB

    return receive_and_call


async def _receive_message(
    service: "Service", messages: Any, context: grpc.aio.ServicerContext[Any, Any], request_id: str
) -> bytes:
    """Check the key and receive the message; a failure counts as a request."""
    metadata = _read_metadata(context)
    refusal: BaseException
    try:
        service.keys.authenticate(metadata.get("authorization"))
        _check_message_length(metadata.get(MESSAGE_LENGTH, ""), service.settings)
        service.receiving.check_answers()
        return await _decompress(await service.receiving.receive(aiter(messages)), service)
    except StopAsyncIteration:
        refusal = InvalidParameter("The call has no message.")
    except BaseException as error:  # noqa: BLE001  # observed below
        refusal = error
    with observe_request("grpc", ROUTE, request_id, lambda: metadata):
        raise refusal


def _read_metadata(context: grpc.aio.ServicerContext[Any, Any]) -> dict[str, str]:
    return {str(key): str(value) for key, value in context.invocation_metadata() or ()}


async def _decompress(message: bytes, service: "Service") -> bytes:
    limit = _compute_message_limit(service.settings)
    if not is_compressed(message):
        return message
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_DECOMPRESSION, decompress, message, limit)


def _check_message_length(length: str, settings: Settings) -> None:
    """Refuse a message by its length, which HAProxy passes on, before it is received."""
    limit = _compute_message_limit(settings)
    if length.isdigit() and int(length) > limit:
        raise ImageTooLarge(
            f"The message has {int(length):,} bytes; the limit is {limit:,}. "
            "ColorizeChunks takes larger photographs."
        )


def _limit_stream(service: "Service", handler: Any, window_size: int) -> Stream:
    call: Stream = handler.stream_stream

    async def call_with_limits(
        messages: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[Any]:
        failures: list[RehueError] = []
        try:
            service.receiving.check_answers()
        except RehueError as error:
            await _abort_observed(context, error)
        # Here, because Ray receives all that it can get, and a client may not read its answers.
        window = asyncio.Semaphore(window_size)
        parse = handler.request_deserializer
        received = _receive_stream(service, messages, parse, window, failures)
        async for answer in call(received, context):
            with service.receiving.send(len(answer)):
                yield answer
            window.release()
        for failure in failures:  # Ray takes it for the end of the stream
            await _abort_observed(context, failure)

    return call_with_limits


async def _abort_observed(
    context: grpc.aio.ServicerContext[Any, Any], failure: RehueError
) -> NoReturn:
    """End a stream with an error, which counts as a request."""
    request_id = uuid.uuid4().hex
    with (
        contextlib.suppress(RehueError),
        observe_request("grpc", ROUTE, request_id, lambda: _read_metadata(context)),
    ):
        raise failure
    await abort_call(context, failure, request_id)


async def _receive_stream(
    service: "Service",
    messages: AsyncIterator[Any],
    parse: Callable[[bytes], Any],
    window: asyncio.Semaphore,
    failures: list[RehueError],
) -> AsyncIterator[Any]:
    iterator = aiter(messages)
    while True:
        await window.acquire()
        try:
            message = await service.receiving.receive(iterator, is_limited=False)
            request = parse(await _decompress(message, service))
        except StopAsyncIteration:
            return
        except RehueError as error:
            failures.append(error)
            return
        del message  # its bytes are in the request
        yield request
