"""The application over HTTP and gRPC on a Triton, without Ray in between."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any
from unittest.mock import Mock

import grpc
import httpx
from ray.serve._private.direct_ingress_grpc_util import gRPCDIReceiveStream
from ray.serve._private.grpc_util import gRPCGenericServer
from ray.serve._private.proxy_request_response import gRPCStreamingType
from ray.serve.generated.serve_pb2 import HealthzResponse
from ray.serve.grpc_util import RayServegRPCContext

from rehue_client.v1 import rehue_pb2_grpc
from rehue_serve import http, rpc, rpc_chunks, rpc_server
from rehue_serve.endpoints import Endpoints
from rehue_serve.service import Service
from rehue_serve.settings import Settings
from rehue_serve.triton import TritonClient


@contextlib.asynccontextmanager
async def start_service(url: str, **options: Any) -> AsyncIterator[Service]:
    settings = Settings(triton_urls=(url,), **{"max_bytes": 32 * 2**20, **options})
    endpoints = Endpoints(settings.triton_urls, model=settings.model, limit=2)
    service = Service(settings, TritonClient(endpoints, default_model=settings.model))
    await service.start()
    try:
        yield service
    finally:
        await service.close()


@contextlib.asynccontextmanager
async def serve_http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(http.build_http_app(service), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def _make_handlers(service: Service) -> Callable[..., Callable[..., Any]]:
    """Make the handlers of Ray's gRPC server, which calls the deployment's methods."""

    def make_handler(service_method: str, streaming_type: gRPCStreamingType) -> Callable[..., Any]:
        methods: dict[str, Callable[..., Any]] = {
            "Colorize": rpc.colorize,
            "ColorizeStream": rpc.colorize_stream,
            "ColorizeChunks": rpc_chunks.colorize_chunks,
            "Candidates": rpc.propose,
            "ListModels": rpc.list_models,
        }
        method = methods[service_method.rpartition("/")[2]]

        async def call_unary(request: Any, context: Any) -> bytes:
            ray_context = RayServegRPCContext(context)
            answer = await method(service, request, ray_context)
            ray_context._set_on_grpc_context(context)
            return bytes(answer.SerializeToString())

        async def call_stream(requests: Any, context: Any) -> AsyncIterator[bytes]:
            ray_context = RayServegRPCContext(context)
            stream = gRPCDIReceiveStream(requests, asyncio.get_running_loop())
            async for answer in method(service, stream, ray_context):
                yield answer.SerializeToString()
            ray_context._set_on_grpc_context(context)

        return call_unary if streaming_type == gRPCStreamingType.UNARY_UNARY else call_stream

    return make_handler


async def _answer_healthy(*_: Any) -> HealthzResponse:
    return HealthzResponse(message="success")


# The health check that HAProxy sends to Ray's replicas.
HEALTH = grpc.method_handlers_generic_handler(
    "ray.serve.RayServeAPIService",
    {
        "Healthz": grpc.unary_unary_rpc_method_handler(
            _answer_healthy, response_serializer=HealthzResponse.SerializeToString
        )
    },
)


@contextlib.asynccontextmanager
async def serve_grpc_at_port(service: Service) -> AsyncIterator[int]:
    """Serve with the class of Ray's gRPC server, and its way of reading streams."""
    rpc_server.configure_server(service)
    server = gRPCGenericServer(_make_handlers(service))
    rpc_server.add_colorizer(Mock(), server)
    grpc.aio.Server.add_generic_rpc_handlers(server, (HEALTH,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def serve_grpc(service: Service) -> AsyncIterator[rehue_pb2_grpc.ColorizerStub]:
    """Serve as `serve_grpc_at_port` does; gives a stub."""
    async with (
        serve_grpc_at_port(service) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield rehue_pb2_grpc.ColorizerStub(channel)  # type: ignore[no-untyped-call]
