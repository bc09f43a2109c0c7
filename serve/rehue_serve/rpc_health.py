"""The gRPC health check, grpc.health.v1."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2
from ray.serve.grpc_util import RayServegRPCContext

from rehue_serve.rpc_compression import accept_compressed

if TYPE_CHECKING:
    from rehue_serve.service import Service

HEALTH_SERVICES = ("", "rehue.v1.Colorizer")  # for which grpc.health.v1 answers
HEALTH_WATCH_INTERVAL = 0.5  # seconds


def add_health(servicer: Any, server: grpc.aio.Server) -> None:
    """Register the service, for compressed messages too."""
    parse = accept_compressed(health_pb2.HealthCheckRequest.FromString)
    serialize = health_pb2.HealthCheckResponse.SerializeToString
    handlers = {
        "Check": grpc.unary_unary_rpc_method_handler(servicer.Check, parse, serialize),
        "Watch": grpc.unary_stream_rpc_method_handler(servicer.Watch, parse, serialize),
    }
    service = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))


def check_health(
    service: "Service", request: health_pb2.HealthCheckRequest, context: RayServegRPCContext
) -> health_pb2.HealthCheckResponse:
    """Answer grpc.health.v1 Check: SERVING when photographs can be colorized."""
    if request.service not in HEALTH_SERVICES:
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details("unknown service")
        return health_pb2.HealthCheckResponse()
    return health_pb2.HealthCheckResponse(status=_get_health(service))


async def watch_health(
    service: "Service", request: health_pb2.HealthCheckRequest
) -> AsyncIterator[health_pb2.HealthCheckResponse]:
    """Answer grpc.health.v1 Watch: the state now, and each change of it."""
    last = None
    while True:
        state = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        if request.service in HEALTH_SERVICES:
            state = _get_health(service)
        if state != last:
            last = state
            yield health_pb2.HealthCheckResponse(status=state)
        await asyncio.sleep(HEALTH_WATCH_INTERVAL)


def _get_health(service: "Service") -> int:
    states = health_pb2.HealthCheckResponse
    return states.SERVING if service.ready else states.NOT_SERVING  # type: ignore[no-any-return]
