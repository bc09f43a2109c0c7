"""Messages and bodies that are too large are refused and counted with their reason."""

import asyncio
import base64
import contextlib
import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from http2 import Http2Connection
from proxied import run_haproxy
from serving import serve_grpc_at_port, serve_http, start_service

from rehue_client.v1 import rehue_pb2
from rehue_client.v1.rehue_pb2_grpc import ColorizerStub
from rehue_serve import haproxy, metrics
from rehue_serve.embedded import EmbeddedTriton
from rehue_serve.errors import ImageTooLarge
from rehue_serve.ports import claim_free_ports
from rehue_serve.rpc_errors import build_rpc_status

LIMIT = 2_065_536  # bytes of a message, with `max_bytes` of 1,000,000
PATH = "/rehue.v1.Colorizer/Colorize"


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How the requests ended."""
    seen: list[str] = []
    monkeypatch.setattr(metrics, "record_answer", lambda _, outcome, __: seen.append(outcome))
    return seen


@contextlib.asynccontextmanager
async def serve_behind_haproxy(
    directory: Path, *, pause: int | None = None, **settings: object
) -> AsyncIterator[int]:
    """Yields HAProxy's gRPC port. There is no Triton: none of these requests reaches one."""
    (nothing,) = claim_free_ports(1)
    async with (
        start_service(f"127.0.0.1:{nothing}", max_bytes=1_000_000, **settings) as service,
        serve_grpc_at_port(service) as port,
    ):
        with run_haproxy(directory, servers=[], grpc_servers=[port], pause=pause) as running:
            yield running.grpc_port


def read_reason(error: grpc.aio.AioRpcError) -> str:
    """The reason in an error's details, which name the same text as the error."""
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(bytes(details))
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return str(info.reason)


COMPRESSIONS = {
    "plain": None, "gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate,
}  # fmt: skip


@pytest.mark.parametrize("compression", COMPRESSIONS.values(), ids=COMPRESSIONS)
@pytest.mark.parametrize("method", ["Colorize", "ColorizeStream", "Candidates"])
async def test_a_message_above_the_limit_gets_its_reason(
    tmp_path: Path, method: str, compression: grpc.Compression | None, outcomes: list[str]
) -> None:
    large = bytes(LIMIT + 1)
    async with (
        serve_behind_haproxy(tmp_path) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", compression=compression) as channel,
    ):
        stub = ColorizerStub(channel)  # type: ignore[no-untyped-call]
        request = rehue_pb2.ColorizeRequest(image=large)
        calls = {
            "Colorize": stub.Colorize,
            "Candidates": lambda _: stub.Candidates(rehue_pb2.CandidatesRequest(image=large)),
            "ColorizeStream": lambda message: stub.ColorizeStream(iter([message])).read(),
        }
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await calls[method](request)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert read_reason(caught.value) == "IMAGE_TOO_LARGE"
    assert "ColorizeChunks" in str(caught.value.details())
    if method != "ColorizeStream" or compression is not None:  # or gRPC itself refuses it
        assert f"{LIMIT:,}" in str(caught.value.details())
        assert outcomes == ["IMAGE_TOO_LARGE"]


async def test_a_compressed_message_that_comes_late_gets_its_reason(
    tmp_path: Path, outcomes: list[str]
) -> None:
    """When the stream's answers have begun, HAProxy can add nothing to the error."""
    answered = asyncio.Event()

    async def send() -> AsyncIterator[rehue_pb2.ColorizeRequest]:
        yield rehue_pb2.ColorizeRequest(image=b"x")
        await answered.wait()
        yield rehue_pb2.ColorizeRequest(image=bytes(LIMIT + 1))

    async with (
        serve_behind_haproxy(tmp_path) as port,
        grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", compression=grpc.Compression.Gzip
        ) as channel,
    ):
        stub = ColorizerStub(channel)  # type: ignore[no-untyped-call]
        call = stub.ColorizeStream(send())
        assert (await call.read()).HasField("error")
        answered.set()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert read_reason(caught.value) == "IMAGE_TOO_LARGE"
    assert outcomes == ["UNAVAILABLE", "IMAGE_TOO_LARGE"]


@pytest.mark.parametrize("compression", COMPRESSIONS.values(), ids=COMPRESSIONS)
async def test_compressed_messages_are_read(
    triton: EmbeddedTriton, tmp_path: Path, photo: bytes, compression: grpc.Compression | None
) -> None:
    """Beside zeros that make them smaller, or gRPC's clients would send them as they are."""
    request = rehue_pb2.ColorizeRequest(image=photo + bytes(100_000), id="x" * 100)
    async with (
        start_service(triton.url) as service,
        serve_grpc_at_port(service) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", compression=compression) as channel,
    ):
        stub = ColorizerStub(channel)  # type: ignore[no-untyped-call]
        assert (await stub.Colorize(request)).image
        assert [answer.id async for answer in stub.ColorizeStream(iter([request] * 3))] == [
            "x" * 100
        ] * 3
        assert len((await stub.Candidates(rehue_pb2.CandidatesRequest(image=photo))).candidates) > 1


@pytest.mark.parametrize("data", [b"\x1f\x8b\x08 no gzip", gzip.compress(bytes(9999))[:-9]])
async def test_broken_compression_is_a_malformed_message(tmp_path: Path, data: bytes) -> None:
    async with (
        serve_behind_haproxy(tmp_path) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PATH)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(data)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_messages_within_the_limit_pass(tmp_path: Path, outcomes: list[str]) -> None:
    """To the pipeline, which has no Triton here."""
    async with (
        serve_behind_haproxy(tmp_path) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = ColorizerStub(channel)  # type: ignore[no-untyped-call]
        for size in (0, 1, LIMIT - 100):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Colorize(rehue_pb2.ColorizeRequest(image=bytes(size)))
            assert read_reason(caught.value) == "UNAVAILABLE"
    assert outcomes == ["UNAVAILABLE"] * 3


async def test_a_caller_cannot_set_the_length(tmp_path: Path) -> None:
    """In the header with which HAProxy passes it to the replica."""
    async with (
        serve_behind_haproxy(tmp_path) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = ColorizerStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Colorize(
                rehue_pb2.ColorizeRequest(image=b"x"), metadata=[("rehue-message-length", "9" * 9)]
            )
    assert read_reason(caught.value) == "UNAVAILABLE"


async def test_photographs_and_references_share_the_memory(tmp_path: Path) -> None:
    """What can never fit is too large, and not refused with a time to retry after."""
    edits = rehue_pb2.Edits(reference=bytes(800_000))
    request = rehue_pb2.ColorizeRequest(image=bytes(800_000), edits=edits)
    async with (
        serve_behind_haproxy(tmp_path, upload_memory=1_200_000) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = ColorizerStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.aio.AioRpcError, match="the limit is 1,200,000") as caught:
            await stub.Colorize(request)
    assert read_reason(caught.value) == "IMAGE_TOO_LARGE"


async def test_a_call_without_a_message_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HAProxy waits for the length."""
    quick = [line.replace(" time 10s ", " time 1s ") for line in haproxy.PASS_MESSAGE_LENGTH]
    assert quick != haproxy.PASS_MESSAGE_LENGTH
    monkeypatch.setattr(haproxy, "PASS_MESSAGE_LENGTH", quick)
    # With a pause HAProxy's configuration is written in this process, with the shorter time.
    async with serve_behind_haproxy(tmp_path, pause=5) as port:
        with contextlib.closing(Http2Connection(port)) as connection:
            connection.send_headers(
                {":method": "POST", ":path": PATH, ":scheme": "http", ":authority": "x"}
                | {"content-type": "application/grpc", "te": "trailers"}
            )
            # In a thread, because the server answers in this one.
            assert await asyncio.to_thread(connection.read_status) is not None


def test_what_haproxy_says_is_our_error() -> None:
    status = build_rpc_status(ImageTooLarge(haproxy.TOO_LARGE), "")
    assert status_pb2.Status.FromString(base64.b64decode(haproxy.TOO_LARGE_STATUS)) == status


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_a_body_that_can_never_fit_is_too_large(chunked: bool) -> None:
    """Over HTTP; where its length is known also while another one holds some of the memory."""
    (nothing,) = claim_free_ports(1)

    async def send_parts() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield bytes(100_000)

    async with (
        start_service(f"127.0.0.1:{nothing}", upload_memory=800_000) as service,
        serve_http(service) as client,
    ):
        with service.uploads.hold() as other:
            other.add(0 if chunked else 1000)
            content = send_parts() if chunked else bytes(1_000_000)
            answer = await client.post("/v1/colorize", content=content)
    assert answer.status_code == 413
    assert "the limit is 800,000" in answer.json()["detail"]
    assert "retry-after" not in answer.headers
