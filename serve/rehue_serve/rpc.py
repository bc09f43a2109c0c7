"""gRPC: messages in and out. No arithmetic here.

Ray Serve calls these methods on the deployment, by the name of the RPC. An
error is set on the context and an empty message returned: raising it would log
a stack trace for every bad photograph, and lose the error's details.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from ray.serve.grpc_util import RayServegRPCContext, gRPCInputStream

from rehue_client.v1 import rehue_pb2
from rehue_serve.errors import GRPC_STATUS, InvalidParameter, RehueError, rpc_status
from rehue_serve.requests import Request, watched
from rehue_serve.service import DEFAULT_QUALITY, Parameters, Service

SERVICES = ("", "rehue.v1.Colorizer")  # that health answers for
STREAM_WINDOW = 16  # photographs of one stream under way at once
NO_MESSAGE = -1  # the format of a request that stands for bytes which are no message

_FORMATS = {
    rehue_pb2.FORMAT_AUTO: "auto",
    rehue_pb2.FORMAT_JPEG: "jpeg",
    rehue_pb2.FORMAT_PNG: "png",
    rehue_pb2.FORMAT_WEBP: "webp",
    rehue_pb2.FORMAT_TIFF: "tiff",
}


def add_colorizer(servicer: Any, server: grpc.aio.Server) -> None:
    """As the generated function; but bytes that are no message are refused by us.

    gRPC alone answers them with UNKNOWN, as if the server were at fault.
    """
    handlers = {
        "Colorize": grpc.unary_unary_rpc_method_handler(
            servicer.Colorize, _message, rehue_pb2.ColorizeResponse.SerializeToString
        ),
        "ColorizeStream": grpc.stream_stream_rpc_method_handler(
            servicer.ColorizeStream, _message, rehue_pb2.ColorizeResponse.SerializeToString
        ),
    }
    name = rehue_pb2.DESCRIPTOR.services_by_name["Colorizer"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))


def _message(data: bytes) -> rehue_pb2.ColorizeRequest:
    try:
        return rehue_pb2.ColorizeRequest.FromString(data)
    except DecodeError:
        return rehue_pb2.ColorizeRequest(format=NO_MESSAGE)  # type: ignore[arg-type]


async def colorize(
    service: Service, request: rehue_pb2.ColorizeRequest, context: RayServegRPCContext
) -> rehue_pb2.ColorizeResponse:
    """One photograph; a failure goes into the context."""
    request_id = _request_id(context)
    try:
        with _watched(context, request_id) as noted:
            service.authenticate(_metadata(context, "authorization"))
            return await _answer(service, request, request_id, noted)
    except RehueError as error:
        _fail(context, error, request_id)
        return rehue_pb2.ColorizeResponse()


async def colorize_stream(
    service: Service,
    requests: gRPCInputStream[rehue_pb2.ColorizeRequest],
    context: RayServegRPCContext,
) -> AsyncIterator[rehue_pb2.ColorizeResponse]:
    """Photographs as they come, answers as they are ready."""
    request_id = _request_id(context)
    try:
        service.authenticate(_metadata(context, "authorization"))
    except RehueError as error:
        with contextlib.suppress(RehueError), _watched(context, request_id):
            raise
        _fail(context, error, request_id)
        return
    answers: asyncio.Queue[rehue_pb2.ColorizeResponse | None] = asyncio.Queue()
    reader = asyncio.create_task(_read(service, requests, context, answers))
    try:
        while (answer := await answers.get()) is not None:
            yield answer
        await reader
    finally:
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader


async def _read(
    service: Service,
    requests: gRPCInputStream[rehue_pb2.ColorizeRequest],
    context: RayServegRPCContext,
    answers: "asyncio.Queue[rehue_pb2.ColorizeResponse | None]",
) -> None:
    """Starts work on each photograph, a window of them at once, until all are answered."""
    window = asyncio.Semaphore(STREAM_WINDOW)
    request_id = _request_id(context)

    async def one(request: rehue_pb2.ColorizeRequest, name: str) -> None:
        try:
            with _watched(context, name) as noted:
                answer = await _answer(service, request, name, noted)
            answers.put_nowait(answer)
        except RehueError as error:
            answers.put_nowait(
                rehue_pb2.ColorizeResponse(
                    id=request.id, request_id=name, error=rpc_status(error, name)
                )
            )
        finally:
            window.release()

    try:
        async with asyncio.TaskGroup() as group:
            count = 0
            await window.acquire()
            async for request in requests:
                group.create_task(one(request, f"{request_id}.{count}"))
                count += 1
                await window.acquire()
    finally:
        answers.put_nowait(None)


async def _answer(
    service: Service, request: rehue_pb2.ColorizeRequest, request_id: str, noted: Request
) -> rehue_pb2.ColorizeResponse:
    noted.received = len(request.image)
    if request.format == NO_MESSAGE:
        raise InvalidParameter("These bytes are no rehue.v1.ColorizeRequest.")
    parameters = Parameters(
        model=request.model,
        strength=request.strength if request.HasField("strength") else 1.0,
        format=_FORMATS.get(request.format, str(request.format)),
        quality=request.quality if request.HasField("quality") else DEFAULT_QUALITY,
    )
    async with service.admitted() as deadline:
        picture = await service.colorize(request.image, parameters, deadline)
    noted.picture = picture
    return rehue_pb2.ColorizeResponse(
        id=request.id,
        image=picture.data,
        media_type=picture.media_type,
        model=picture.model,
        request_id=request_id,
        timings=rehue_pb2.Timings(**picture.timings),
    )


def check(
    service: Service, request: health_pb2.HealthCheckRequest, context: RayServegRPCContext
) -> health_pb2.HealthCheckResponse:
    """grpc.health.v1: serving means that a Triton serves the default model and nothing stops."""
    if request.service not in SERVICES:
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details("unknown service")
        return health_pb2.HealthCheckResponse()
    kinds = health_pb2.HealthCheckResponse
    return kinds(status=kinds.SERVING if service.ready else kinds.NOT_SERVING)


async def watch(
    service: Service, request: health_pb2.HealthCheckRequest
) -> AsyncIterator[health_pb2.HealthCheckResponse]:
    """grpc.health.v1: the state now and whenever it changes."""
    kinds = health_pb2.HealthCheckResponse
    last = None
    while True:
        state = kinds.SERVING if service.ready else kinds.NOT_SERVING
        if request.service not in SERVICES:
            state = kinds.SERVICE_UNKNOWN
        if state != last:
            last = state
            yield kinds(status=state)
        await asyncio.sleep(0.5)


def _fail(context: RayServegRPCContext, error: RehueError, request_id: str) -> None:
    context.set_code(GRPC_STATUS[type(error)])
    context.set_details(error.detail)
    status = rpc_status(error, request_id).SerializeToString()
    context.set_trailing_metadata([("grpc-status-details-bin", status)])


def _watched(
    context: RayServegRPCContext, request_id: str
) -> contextlib.AbstractContextManager[Request]:
    """As `watched`; each photograph of a stream on its own."""
    return watched("grpc", "rehue.v1.Colorizer/Colorize", request_id, lambda: _carrier(context))


def _carrier(context: RayServegRPCContext) -> dict[str, str]:
    return {str(key): str(value) for key, value in context.invocation_metadata()}


def _metadata(context: RayServegRPCContext, name: str) -> str | None:
    for key, value in context.invocation_metadata():
        if key == name:
            return str(value)
    return None


def _request_id(context: RayServegRPCContext) -> str:
    # Ray names every request and sends that name back as trailing metadata.
    names = (value for key, value in context.trailing_metadata() if key == "request_id")
    return next(names, "")
