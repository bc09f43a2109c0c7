"""gRPC: messages in and out. No arithmetic here.

Ray Serve calls these methods on the deployment, by the name of the RPC. An
error is set on the context and an empty message returned: raising it would log
a stack trace for every bad photograph, and lose the error's details.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
from grpc_health.v1 import health_pb2
from ray.serve.grpc_util import RayServegRPCContext, gRPCInputStream

from rehue_client.v1 import rehue_pb2
from rehue_serve import metrics
from rehue_serve.errors import GRPC_STATUS, RehueError, rpc_status
from rehue_serve.service import DEFAULT_QUALITY, Parameters, Service

SERVICES = ("", "rehue.v1.Colorizer")  # that health answers for
STREAM_WINDOW = 16  # photographs of one stream under way at once

_FORMATS = {
    rehue_pb2.FORMAT_AUTO: "auto",
    rehue_pb2.FORMAT_JPEG: "jpeg",
    rehue_pb2.FORMAT_PNG: "png",
    rehue_pb2.FORMAT_WEBP: "webp",
    rehue_pb2.FORMAT_TIFF: "tiff",
}


async def colorize(
    service: Service, request: rehue_pb2.ColorizeRequest, context: RayServegRPCContext
) -> rehue_pb2.ColorizeResponse:
    """One photograph; a failure goes into the context."""
    request_id = _request_id(context)
    try:
        service.authenticate(_metadata(context, "authorization"))
        return await _answer(service, request, request_id)
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
        _fail(context, error, request_id)
        return
    answers: asyncio.Queue[rehue_pb2.ColorizeResponse | None] = asyncio.Queue()
    reader = asyncio.create_task(_read(service, requests, request_id, answers))
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
    request_id: str,
    answers: "asyncio.Queue[rehue_pb2.ColorizeResponse | None]",
) -> None:
    """Starts work on each photograph, a window of them at once, until all are answered."""
    window = asyncio.Semaphore(STREAM_WINDOW)

    async def one(request: rehue_pb2.ColorizeRequest, name: str) -> None:
        try:
            answers.put_nowait(await _answer(service, request, name))
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
    service: Service, request: rehue_pb2.ColorizeRequest, request_id: str
) -> rehue_pb2.ColorizeResponse:
    with metrics.counted("grpc"):
        parameters = Parameters(
            model=request.model,
            strength=request.strength if request.HasField("strength") else 1.0,
            format=_FORMATS.get(request.format, str(request.format)),
            quality=request.quality if request.HasField("quality") else DEFAULT_QUALITY,
        )
        picture = await service.colorize(request.image, parameters)
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
    """grpc.health.v1: serving means that a Triton serves the default model."""
    if request.service not in SERVICES:
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details("unknown service")
        return health_pb2.HealthCheckResponse()
    kinds = health_pb2.HealthCheckResponse
    return kinds(status=kinds.SERVING if service.triton.ready else kinds.NOT_SERVING)


async def watch(
    service: Service, request: health_pb2.HealthCheckRequest
) -> AsyncIterator[health_pb2.HealthCheckResponse]:
    """grpc.health.v1: the state now and whenever it changes."""
    kinds = health_pb2.HealthCheckResponse
    last = None
    while True:
        state = kinds.SERVING if service.triton.ready else kinds.NOT_SERVING
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


def _metadata(context: RayServegRPCContext, name: str) -> str | None:
    for key, value in context.invocation_metadata():
        if key == name:
            return str(value)
    return None


def _request_id(context: RayServegRPCContext) -> str:
    # Ray names every request and sends that name back as trailing metadata.
    names = (value for key, value in context.trailing_metadata() if key == "request_id")
    return next(names, "")
