"""The gRPC method that receives and answers one photograph in chunks."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator

from ray.serve.grpc_util import RayServegRPCContext, gRPCInputStream

from rehue_client.v1 import rehue_pb2
from rehue_serve import images
from rehue_serve.bodies import Body
from rehue_serve.choices import Parameters
from rehue_serve.errors import InvalidParameter, RehueError
from rehue_serve.keys import Caller
from rehue_serve.observation import RequestRecord
from rehue_serve.pipeline import Colorized
from rehue_serve.rpc import build_response
from rehue_serve.rpc_context import get_metadata, get_request_id, observe_photograph, set_error
from rehue_serve.rpc_parameters import parse_parameters
from rehue_serve.service import Service
from rehue_serve.uploads import Upload

MAX_DISCARD = 5.0  # seconds for the rest of a refused photograph
CHUNK = 1 << 20  # bytes of a picture in one message; gRPC's clients take 4 MiB by default


async def colorize_chunks(
    service: Service,
    requests: gRPCInputStream[rehue_pb2.ColorizeRequest],
    context: RayServegRPCContext,
) -> AsyncIterator[rehue_pb2.ColorizeResponse]:
    """Colorize one photograph that comes in chunks; errors are set on the context."""
    request_id = get_request_id(context)
    try:
        with observe_photograph(context, request_id) as record:
            caller = service.keys.authenticate(get_metadata(context, "authorization"))
            id, picture = await _colorize(service, caller, requests, record)
            record.picture = picture
    except RehueError as error:
        set_error(context, error, request_id)
        return
    yield build_response(picture, picture.data[:CHUNK], id, request_id)
    for start in range(CHUNK, len(picture.data), CHUNK):
        yield rehue_pb2.ColorizeResponse(image=picture.data[start : start + CHUNK])


async def _colorize(
    service: Service,
    caller: Caller,
    requests: gRPCInputStream[rehue_pb2.ColorizeRequest],
    record: RequestRecord,
) -> tuple[str, Colorized]:
    """Return the caller's id of the photograph, and the picture."""
    service.admission.check_open(caller)
    with service.uploads.hold() as upload:
        try:
            async with upload.receive():
                id, parameters, body = await _receive(requests, upload, service.settings.byte_limit)
        except RehueError:
            await _discard(requests)
            raise
        record.bytes_in = len(body.photograph)
        async with service.admission.admit(caller, runs=parameters.runs) as deadline:
            return id, await service.pipeline.colorize(body.take_photograph(), parameters, deadline)


async def _discard(requests: gRPCInputStream[rehue_pb2.ColorizeRequest]) -> None:
    """Discard what still comes: a client that is sending may lose the error's details."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(MAX_DISCARD):
            async for _ in requests:
                pass


async def _receive(
    requests: gRPCInputStream[rehue_pb2.ColorizeRequest], upload: Upload, max_bytes: int
) -> tuple[str, Parameters, Body]:
    """Receive the chunks; stop at the limit, and at wrong parameters in the first of them."""
    first, file = None, io.BytesIO()
    async for request in requests:
        parameters = parse_parameters(request)  # of every message: each may be malformed
        first = first or (request.id, parameters)
        content = request.image
        images.check_byte_limit(upload.size + len(content), max_bytes)
        upload.add(len(content))
        file.write(content)
    if first is None:
        raise InvalidParameter("The call has no message.")
    return (*first, Body(file.getvalue()))
