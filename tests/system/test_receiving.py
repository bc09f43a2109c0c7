"""gRPC messages: whose key is checked first, who is ended when they fill the memory."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from serving import serve_grpc, start_service

from rehue_client.v1 import rehue_pb2
from rehue_serve import receiving
from rehue_serve.embedded import EmbeddedTriton

LARGE = bytes(40_000_000)


async def test_the_key_is_checked_before_the_message_is_received(
    triton: EmbeddedTriton, tmp_path: Path
) -> None:
    """Or the size of this message would be refused first."""
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
