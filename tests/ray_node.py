"""Kills a Ray node and calls its gRPC ports."""

import contextlib

import grpc
import psutil


def kill_node(node: psutil.Process) -> None:
    """Kills all processes of a Ray node at once, as a power failure does."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [node, *node.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def call_ray(address: str, method: str, request: bytes, token: str) -> bytes:
    """Calls one of Ray's gRPC ports.

    Args:
        token: for Ray's authentication; empty: none is sent.

    Raises:
        grpc.RpcError: UNAUTHENTICATED if Ray requires another token.
    """
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    with grpc.insecure_channel(address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        return call(request, metadata=metadata, timeout=30)
