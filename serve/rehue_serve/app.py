"""The Ray Serve application: one deployment that serves HTTP and gRPC.

`rehue serve` and Ray's own processes import this module too. So it imports codecs, Numba and
the rest of the service in a replica alone: they take 80 MiB.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig, gRPCOptions
from ray.serve.schema import LoggingConfig

from rehue_serve import settings
from rehue_serve.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from grpc_health.v1 import health_pb2
    from ray.serve.grpc_util import RayServegRPCContext, gRPCInputStream

    from rehue_client.v1 import rehue_pb2

NAME = "rehue"

# Services of Ray's gRPC servers. grpc.health.v1 is answered by the application, not by Ray.
SERVICERS = (
    "rehue_serve.rpc_server.add_colorizer",
    "rehue_serve.rpc_health.add_health",
    "rehue_serve.rpc_reflection.add_reflection",
)


@serve.deployment
@serve.ingress()
class Colorizer:
    """One process that colorizes photographs. Its methods are named after the RPCs."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Ray awaits it
        from rehue_serve import http, logs, rpc, rpc_chunks, rpc_health, rpc_server, tracing
        from rehue_serve.service import Service
        from rehue_serve.triton import build_triton_client

        self._http, self._rpc = http, rpc
        self._rpc_chunks, self._rpc_health = rpc_chunks, rpc_health
        logs.configure_logging(settings)
        tracing.configure_tracing(settings)
        self._service = Service(settings, build_triton_client(settings))
        rpc_server.configure_server(self._service)
        await self._service.start()

    def __serve_build_asgi_app__(self) -> "FastAPI":
        return self._http.build_http_app(self._service)

    async def drain(self) -> None:
        """Called on every replica when the server is told to stop."""
        await self._service.drain()

    async def Colorize(
        self, request: "rehue_pb2.ColorizeRequest", grpc_context: "RayServegRPCContext"
    ) -> "rehue_pb2.ColorizeResponse":
        return await self._rpc.colorize(self._service, request, grpc_context)

    async def Candidates(
        self, request: "rehue_pb2.CandidatesRequest", grpc_context: "RayServegRPCContext"
    ) -> "rehue_pb2.CandidatesResponse":
        return await self._rpc.propose(self._service, request, grpc_context)

    async def ListModels(
        self, request: "rehue_pb2.ListModelsRequest", grpc_context: "RayServegRPCContext"
    ) -> "rehue_pb2.ListModelsResponse":
        return await self._rpc.list_models(self._service, request, grpc_context)

    async def ColorizeStream(
        self,
        requests: "gRPCInputStream[rehue_pb2.ColorizeRequest]",
        grpc_context: "RayServegRPCContext",
    ) -> "AsyncIterator[rehue_pb2.ColorizeResponse]":
        async for answer in self._rpc.colorize_stream(self._service, requests, grpc_context):
            yield answer

    async def ColorizeChunks(
        self,
        requests: "gRPCInputStream[rehue_pb2.ColorizeRequest]",
        grpc_context: "RayServegRPCContext",
    ) -> "AsyncIterator[rehue_pb2.ColorizeResponse]":
        async for chunk in self._rpc_chunks.colorize_chunks(self._service, requests, grpc_context):
            yield chunk

    async def Check(
        self, request: "health_pb2.HealthCheckRequest", grpc_context: "RayServegRPCContext"
    ) -> "health_pb2.HealthCheckResponse":
        return self._rpc_health.check_health(self._service, request, grpc_context)

    async def Watch(
        self, request: "health_pb2.HealthCheckRequest", grpc_context: "RayServegRPCContext"
    ) -> "AsyncIterator[health_pb2.HealthCheckResponse]":
        del grpc_context  # Ray passes it by name
        async for answer in self._rpc_health.watch_health(self._service, request):
            yield answer


def build_application(settings: Settings) -> Application:
    """Build the application with these settings, for ``serve.run``."""
    options = Colorizer.options(  # type: ignore[attr-defined]  # the decorator adds it
        num_replicas=settings.replicas,
        # The application refuses first, with a better answer; Ray's limit is a backstop.
        max_ongoing_requests=settings.max_uploads + settings.max_requests,
        max_queued_requests=settings.max_requests,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
        # A new replica is ready before an old one stops.
        max_surge_percent=100,
        graceful_shutdown_timeout_s=settings.grace,
        graceful_shutdown_wait_loop_s=0.5,
        logging_config=LoggingConfig(enable_access_log=False),
    )
    return options.bind(settings)


def build(_: dict[str, str]) -> Application:
    """Build the application for ``serve run rehue_serve.app:build``, from the environment."""
    return build_application(settings.load_settings())


def build_grpc_options(settings: Settings) -> gRPCOptions:
    """Build the options of Ray's gRPC servers for this application."""
    return gRPCOptions(port=settings.grpc_port, grpc_servicer_functions=list(SERVICERS))
