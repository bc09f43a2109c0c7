"""gRPC methods. Images and colours are handled by `rehue_serve.pipeline`.

Ray Serve calls these functions through the deployment's methods, by the RPC's name.
Errors are set on the context and an empty message is returned: if they were raised,
Ray would log a stack trace for each and drop the error's details.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from google.protobuf import json_format
from ray.serve.grpc_util import RayServegRPCContext, gRPCInputStream

from rehue_client.v1 import rehue_pb2
from rehue_serve import images
from rehue_serve.candidates import Candidates
from rehue_serve.choices import Parameters
from rehue_serve.errors import Internal, RehueError
from rehue_serve.keys import Caller
from rehue_serve.observation import RequestRecord
from rehue_serve.pipeline import Colorized
from rehue_serve.rpc_context import get_metadata, get_request_id, observe_photograph, set_error
from rehue_serve.rpc_edits import build_candidates_message
from rehue_serve.rpc_errors import build_rpc_status
from rehue_serve.rpc_parameters import parse_candidates_parameters, parse_parameters
from rehue_serve.service import Service

A = TypeVar("A", Colorized, Candidates)

log = logging.getLogger(__name__)


async def colorize(
    service: Service, request: rehue_pb2.ColorizeRequest, context: RayServegRPCContext
) -> rehue_pb2.ColorizeResponse:
    """Colorize one photograph; errors are set on the context."""
    request_id = get_request_id(context)
    try:
        with observe_photograph(context, request_id) as record:
            caller = service.keys.authenticate(get_metadata(context, "authorization"))
            return await _answer_request(service, caller, request, request_id, record)
    except RehueError as error:
        set_error(context, error, request_id)
        return rehue_pb2.ColorizeResponse()


async def propose(
    service: Service, request: rehue_pb2.CandidatesRequest, context: RayServegRPCContext
) -> rehue_pb2.CandidatesResponse:
    """Answer several versions of one photograph; errors are set on the context."""
    request_id = get_request_id(context)
    try:
        with observe_photograph(context, request_id, "rehue.v1.Colorizer/Candidates") as record:
            caller = service.keys.authenticate(get_metadata(context, "authorization"))
            return await _answer_candidates(service, caller, request, request_id, record)
    except RehueError as error:
        set_error(context, error, request_id)
        return rehue_pb2.CandidatesResponse()


async def list_models(
    service: Service,
    request: rehue_pb2.ListModelsRequest,  # noqa: ARG001  # as Ray calls it
    context: RayServegRPCContext,
) -> rehue_pb2.ListModelsResponse:
    """List the models; errors are set on the context."""
    try:
        service.keys.authenticate(get_metadata(context, "authorization"))
        listed = await service.triton.models.list_models()
        models = [json_format.ParseDict(model, rehue_pb2.Model()) for model in listed]
    except RehueError as error:
        set_error(context, error, get_request_id(context))
        return rehue_pb2.ListModelsResponse()
    except Exception:  # a fault: its cause is logged, and the caller gets INTERNAL
        log.exception("listing the models failed")
        set_error(context, Internal("The server failed on this request."), get_request_id(context))
        return rehue_pb2.ListModelsResponse()
    return rehue_pb2.ListModelsResponse(models=models)


async def colorize_stream(
    service: Service,
    requests: gRPCInputStream[rehue_pb2.ColorizeRequest],
    context: RayServegRPCContext,
) -> AsyncIterator[rehue_pb2.ColorizeResponse]:
    """Colorize the photographs of a stream; answers come in the order in which they are ready."""
    request_id = get_request_id(context)
    caller = _authenticate_stream(service, context, request_id)
    if isinstance(caller, RehueError):
        set_error(context, caller, request_id)
        return
    answers: asyncio.Queue[rehue_pb2.ColorizeResponse | None] = asyncio.Queue()
    reader = asyncio.create_task(_read_stream(service, caller, requests, context, answers))
    try:
        while (answer := await answers.get()) is not None:
            yield answer
        await reader
    except Exception:  # a fault outside any photograph, which have their own answers
        log.exception("a stream failed")
        set_error(context, Internal("The server failed on this stream."), request_id)
    finally:
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await reader


def _authenticate_stream(
    service: Service, context: RayServegRPCContext, request_id: str
) -> Caller | RehueError:
    """Return the caller, or the error of a refused stream, which counts as one request."""
    try:
        return service.keys.authenticate(get_metadata(context, "authorization"))
    except Exception:  # noqa: BLE001  # observed below, like any request
        try:
            with observe_photograph(context, request_id):
                raise
        except RehueError as error:
            return error


async def _read_stream(
    service: Service,
    caller: Caller,
    requests: gRPCInputStream[rehue_pb2.ColorizeRequest],
    context: RayServegRPCContext,
    answers: "asyncio.Queue[rehue_pb2.ColorizeResponse | None]",
) -> None:
    """Start work on each photograph and wait for all answers.

    None in the queue marks the end. `rehue_serve.rpc_server` limits how many photographs come.
    """
    stream_id = get_request_id(context)

    async def answer_one(request: rehue_pb2.ColorizeRequest, request_id: str) -> None:
        try:
            with observe_photograph(context, request_id) as record:
                answer = await _answer_request(service, caller, request, request_id, record)
            answers.put_nowait(answer)
        except RehueError as error:
            answers.put_nowait(
                rehue_pb2.ColorizeResponse(
                    id=request.id, request_id=request_id, error=build_rpc_status(error, request_id)
                )
            )

    try:
        async with asyncio.TaskGroup() as group:
            count = 0
            async for request in requests:
                group.create_task(answer_one(request, f"{stream_id}.{count}"))
                count += 1
    finally:
        answers.put_nowait(None)


async def _answer_request(
    service: Service,
    caller: Caller,
    request: rehue_pb2.ColorizeRequest,
    request_id: str,
    record: RequestRecord,
) -> rehue_pb2.ColorizeResponse:
    record.bytes_in = len(request.image)
    parameters = parse_parameters(request)
    picture = await _process_admitted(
        service, caller, request, parameters, service.pipeline.colorize
    )
    record.picture = picture
    return build_response(picture, picture.data, request.id, request_id)


def build_response(
    picture: Colorized, image: bytes, id: str, request_id: str
) -> rehue_pb2.ColorizeResponse:
    """Build the answer of a picture, with its bytes or the first of them."""
    return rehue_pb2.ColorizeResponse(
        id=id,
        image=image,
        media_type=picture.media_type,
        model=picture.model,
        request_id=request_id,
        timings=rehue_pb2.Timings(**picture.timings),
        pages=picture.pages,
        frames=picture.frames,
        dropped=picture.dropped,
    )


async def _answer_candidates(
    service: Service,
    caller: Caller,
    request: rehue_pb2.CandidatesRequest,
    request_id: str,
    record: RequestRecord,
) -> rehue_pb2.CandidatesResponse:
    record.bytes_in = len(request.image)
    parameters = parse_candidates_parameters(request)
    found = await _process_admitted(service, caller, request, parameters, service.pipeline.propose)
    record.picture = found
    return build_candidates_message(found, request_id)


async def _process_admitted(
    service: Service,
    caller: Caller,
    request: rehue_pb2.ColorizeRequest | rehue_pb2.CandidatesRequest,
    parameters: Parameters,
    work: Callable[[bytes, Parameters, float], Awaitable[A]],
) -> A:
    """Give the photograph to a method of the pipeline when there is a place."""
    service.admission.check_open(caller)
    with service.uploads.hold() as upload:
        size = len(request.image) + len(request.edits.reference)
        images.check_byte_limit(size, service.settings.upload_memory)
        upload.add(size)
        async with service.admission.admit(caller, runs=parameters.runs) as deadline:
            return await work(request.image, parameters, deadline)
