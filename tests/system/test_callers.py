"""One caller cannot harm another: slow uploads, messages of any size, pictures of any depth."""

import io
import socket
import threading
import time
from pathlib import Path

import grpc
import httpx
import numpy as np
import psutil
import pytest
from PIL import Image
from slow_uploads import trickle_uploads

from rehue_client.v1 import rehue_pb2, rehue_pb2_grpc
from rehue_serve.testing.servers import Server

MIB = 2**20


class Peak:
    """Peak memory of a server's replica, in bytes above its memory at creation."""

    def __init__(self, server: Server) -> None:
        processes = psutil.Process(server.process.pid).children(recursive=True)
        (replica,) = (
            process for process in processes if "ray::ServeReplica" in " ".join(process.cmdline())
        )
        self._process = Path(f"/proc/{replica.pid}")
        (self._process / "clear_refs").write_text("5")  # the peak counts from now on
        self._before = self._read()

    def measure(self) -> int:
        return self._read() - self._before

    def _read(self) -> int:
        status = (self._process / "status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024


def test_slow_uploads_take_no_place(server: Server, photo: bytes) -> None:
    """128 of them, twice as many as there are places."""
    with (
        trickle_uploads(server.ports["http"], 128),
        httpx.Client(base_url=server.http_url, timeout=60) as http,
    ):
        time.sleep(1)
        answers = [http.post("/v1/colorize", content=photo).status_code for _ in range(5)]
    assert answers == [200] * 5


def test_a_slow_upload_is_ended_with_a_reason(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=60) as connection:
        connection.sendall(
            b"POST /v1/colorize HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n\xff\xd8"
        )
        began = time.monotonic()
        answer = b""
        while b"request_id" not in answer:  # the last part of the problem
            answer += connection.recv(65536) or pytest.fail(f"closed after {answer!r}")
    assert time.monotonic() - began < 40
    assert b" 504 " in answer.split(b"\r\n")[0]
    assert b"too slow" in answer


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip], ids=["plain", "gzip"])
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_a_large_message_is_refused_and_not_kept(
    server: Server, compression: grpc.Compression | None, stream: bool
) -> None:
    peak = Peak(server)
    request = rehue_pb2.ColorizeRequest(image=bytes(200 * MIB))
    options = [("grpc.max_send_message_length", -1)]
    address = server.grpc_url.removeprefix("grpc://")
    with grpc.insecure_channel(address, options, compression) as channel:
        stub = rehue_pb2_grpc.ColorizerStub(channel)  # type: ignore[no-untyped-call]

        def call() -> object:
            if stream:
                return list(stub.ColorizeStream(iter([request]), timeout=120))
            return stub.Colorize(request, timeout=120)

        with pytest.raises(grpc.RpcError) as caught:
            call()
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "IMAGE_TOO_LARGE" in str(caught.value.trailing_metadata())
    grown = peak.measure()
    print(f"\na message of 200 MiB: +{grown / MIB:.0f} MiB at the peak")
    assert grown < 130 * MIB  # the limit is 64 MiB, and a compressed one is held twice


def test_a_message_above_the_limit_gets_its_reason(server: Server, photo: bytes) -> None:
    """Where gRPC does not refuse it before: up to twice the limit."""
    request = rehue_pb2.ColorizeRequest(image=photo + bytes(40 * MIB))
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.grpc_url.removeprefix("grpc://"), options) as channel:
        stub = rehue_pb2_grpc.ColorizerStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.RpcError) as caught:
            stub.Colorize(request, timeout=120)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "IMAGE_TOO_LARGE" in str(caught.value.trailing_metadata())


def test_deep_pictures_share_the_memory(server: Server) -> None:
    """Four TIFFs of 49 megapixels at once, 0.1 MB each as files: they took 3.6 GB."""
    out = io.BytesIO()
    deep = np.full((7000, 7000), 30000, np.uint16)
    Image.fromarray(deep).save(out, "TIFF", compression="tiff_adobe_deflate")
    peak = Peak(server)
    statuses = []

    def send() -> None:
        answer = httpx.post(
            f"{server.http_url}/v1/colorize",
            content=out.getvalue(),
            params={"format": "jpeg"},
            timeout=120,
        )
        statuses.append(answer.status_code)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 429, 504}
    assert 200 in statuses
    grown = peak.measure()
    print(f"\nfour TIFFs of 49 megapixels: {statuses}, +{grown / MIB:.0f} MiB at the peak")
    assert grown < 1300 * MIB
