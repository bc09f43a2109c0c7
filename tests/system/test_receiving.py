"""gRPC messages: keys are checked first, and slow messages ended when memory is used up."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tifffile
from serving import serve_grpc, serve_grpc_at_port, start_service

from rehue_client import AsyncClient
from rehue_client.v1 import rehue_pb2
from rehue_serve import receiving
from rehue_serve.embedded import EmbeddedTriton

LARGE = bytes(40_000_000)


async def test_the_key_is_checked_before_the_message_is_received(
    triton: EmbeddedTriton, tmp_path: Path
) -> None:
    """Otherwise this message would be refused for its size."""
    keys = tmp_path / "keys"
    keys.write_text("right\n")
    async with (
        start_service(triton.url, api_keys_file=keys) as service,
        serve_grpc(service) as stub,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Colorize(rehue_pb2.ColorizeRequest(image=LARGE))
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        metadata = (("authorization", "Bearer right"),)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Colorize(rehue_pb2.ColorizeRequest(image=LARGE), metadata=metadata)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_messages_that_come_slowly_give_way_when_memory_is_used_up(
    triton: EmbeddedTriton, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "YOUNG", 0.5)
    used = receiving.read_resident_memory()
    async with start_service(triton.url) as service, serve_grpc(service) as stub:

        async def nothing() -> AsyncIterator[rehue_pb2.ColorizeRequest]:
            await asyncio.sleep(60)
            yield rehue_pb2.ColorizeRequest()

        slow = stub.ColorizeStream(nothing())
        waiting = asyncio.ensure_future(slow.read())
        await asyncio.sleep(1)
        assert not waiting.done()  # there is memory enough
        monkeypatch.setattr(receiving, "read_resident_memory", lambda: used + 2**40)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(waiting, 10)
        answer = await stub.Colorize(rehue_pb2.ColorizeRequest(image=photo))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert answer.image


async def test_a_message_has_a_time_limit(triton: EmbeddedTriton) -> None:
    async with start_service(triton.url, upload_timeout=0.5) as service, serve_grpc(service):
        messages = asyncio.Queue[object]()

        async def slowly() -> AsyncIterator[object]:
            yield await messages.get()

        with pytest.raises(Exception, match=r"more than 0\.5 seconds"):
            await asyncio.wait_for(service.receiving.receive(slowly()), 10)


async def test_streams_and_calls_pass(triton: EmbeddedTriton, photo: bytes) -> None:
    requests = [rehue_pb2.ColorizeRequest(image=photo, id=str(number)) for number in range(5)]
    async with start_service(triton.url) as service, serve_grpc(service) as stub:
        answers = [answer async for answer in stub.ColorizeStream(iter(requests))]
        single = await stub.Colorize(requests[0])
    assert {answer.id for answer in answers} == {"0", "1", "2", "3", "4"}
    assert all(answer.image for answer in answers)
    assert single.image


def write_noise(side: int) -> bytes:
    """A TIFF that compresses badly, answered by one of thrice its size."""
    out, noise = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)
    tifffile.imwrite(out, noise)
    return out.getvalue()


async def test_a_large_photograph_goes_in_chunks_both_ways(triton: EmbeddedTriton) -> None:
    """With a client of gRPC's own limits, which takes messages of 4 MiB."""
    data = write_noise(2400)
    chunks = [data[start : start + 500_000] for start in range(0, len(data), 500_000)]
    requests = [rehue_pb2.ColorizeRequest(image=chunk) for chunk in chunks]
    requests[0].id, requests[0].strength = "scan", 0.0
    async with start_service(triton.url) as service, serve_grpc(service) as stub:
        answers = [answer async for answer in stub.ColorizeChunks(iter(requests))]
    assert [answer.id for answer in answers] == ["scan"] + [""] * (len(answers) - 1)
    assert answers[0].media_type == "image/tiff"
    picture = tifffile.imread(io.BytesIO(b"".join(answer.image for answer in answers)))
    assert len(answers) > 4
    assert np.abs(picture.astype(int) - tifffile.imread(io.BytesIO(data))[..., None]).max() <= 1


async def test_chunks_are_refused_at_the_limit_and_for_wrong_parameters(
    triton: EmbeddedTriton,
) -> None:
    many = [rehue_pb2.ColorizeRequest(image=bytes(1_000_000))] * 5
    async with (
        start_service(triton.url, max_bytes=3_000_000) as service,
        serve_grpc(service) as stub,
    ):
        for requests, words in (
            (many, "the limit is 3,000,000"),
            ([rehue_pb2.ColorizeRequest(strength=7), *many], "strength is 7"),
            ([], "no message"),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match=words):
                [answer async for answer in stub.ColorizeChunks(iter(requests))]
        assert not service.uploads.in_progress


async def test_the_sdk_sends_large_photographs_in_chunks(triton: EmbeddedTriton) -> None:
    """Over the limit of one message, which the server would refuse."""
    data = write_noise(6000)
    async with (
        start_service(triton.url, max_bytes=40_000_000) as service,
        serve_grpc_at_port(service) as port,
        AsyncClient(f"grpc://127.0.0.1:{port}") as client,
    ):
        picture = await client.colorize(data, format="jpeg")
    assert len(data) > 35_000_000
    assert picture.data.startswith(b"\xff\xd8")
