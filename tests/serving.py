"""The application over HTTP and gRPC on a Triton, without Ray in between."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
from ray.serve.grpc_util import RayServegRPCContext

from rehue_client.v1 import rehue_pb2_grpc
from rehue_serve import http, rpc
from rehue_serve.endpoints import Endpoints
from rehue_serve.service import Service
from rehue_serve.settings import Settings
from rehue_serve.triton import TritonClient


@contextlib.asynccontextmanager
async def start_service(url: str, **options: Any) -> AsyncIterator[Service]:
    settings = Settings(triton_urls=(url,), **options)
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


@dataclass
class _Servicer(rehue_pb2_grpc.ColorizerServicer):
    """Calls the handlers as Ray's gRPC server does."""

    service: Service

    async def Colorize(self, request: Any, context: Any) -> Any:
        ray_context = RayServegRPCContext(context)
        answer = await rpc.colorize(self.service, request, ray_context)
        ray_context._set_on_grpc_context(context)
        return answer

    async def ListModels(self, request: Any, context: Any) -> Any:
        ray_context = RayServegRPCContext(context)
        answer = await rpc.list_models(self.service, request, ray_context)
        ray_context._set_on_grpc_context(context)
        return answer

    async def ColorizeStream(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        ray_context = RayServegRPCContext(context)
        async for answer in rpc.colorize_stream(self.service, requests, ray_context):
            yield answer
        ray_context._set_on_grpc_context(context)


@contextlib.asynccontextmanager
async def serve_grpc(service: Service) -> AsyncIterator[rehue_pb2_grpc.ColorizerStub]:
    server = grpc.aio.server()
    rpc.add_colorizer(_Servicer(service), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield rehue_pb2_grpc.ColorizerStub(channel)  # type: ignore[no-untyped-call]
    finally:
        await server.stop(None)
