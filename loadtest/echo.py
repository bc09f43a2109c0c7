"""A server that answers every photograph with itself, at once, over HTTP and gRPC.

python -m loadtest.echo HTTP_PORT GRPC_PORT
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import uvicorn

from rehue_client.v1 import rehue_pb2, rehue_pb2_grpc


class EchoServicer(rehue_pb2_grpc.ColorizerServicer):
    """Answers each photograph with itself."""

    async def Colorize(
        self, request: rehue_pb2.ColorizeRequest, _context: object
    ) -> rehue_pb2.ColorizeResponse:
        return rehue_pb2.ColorizeResponse(image=request.image, media_type="image/jpeg")


async def echo_http(
    _scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answer a request with its body (ASGI)."""
    body, incomplete = b"", True
    while incomplete:
        message = await receive()
        body, incomplete = body + message.get("body", b""), message.get("more_body", False)
    headers = [(b"content-type", b"image/jpeg"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def serve(http_port: int, grpc_port: int) -> None:
    """Serve both protocols until SIGTERM."""
    server = grpc.aio.server()
    rehue_pb2_grpc.add_ColorizerServicer_to_server(EchoServicer(), server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"127.0.0.1:{grpc_port}")
    await server.start()
    config = uvicorn.Config(echo_http, port=http_port, log_level="warning", lifespan="off")
    await uvicorn.Server(config).serve()  # until SIGTERM
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
