"""Faults of the server and requests that callers give up, over both protocols."""

import asyncio
import logging
from collections.abc import AsyncIterator

import grpc
import pytest
from serving import serve_grpc, serve_http, start_service

from rehue_client.v1 import rehue_pb2
from rehue_serve import stages
from rehue_serve.embedded import EmbeddedTriton
from rehue_serve.keys import ApiKeys
from rehue_serve.testing.tritons import SleepingTriton

SECRET = "/secret/path"


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every photograph fail with an unexpected exception."""

    def fail(*_: object) -> bytes:
        raise MemoryError(SECRET)

    monkeypatch.setattr(stages, "encode_pictures", fail)


def list_outcomes(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Level and outcome of each request's log line."""
    return [
        (record.levelname, record.fields["outcome"])  # type: ignore[attr-defined]
        for record in caplog.records
        if record.getMessage() == "photograph"
    ]


def list_causes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [str(record.exc_info[1]) for record in caplog.records if record.exc_info]


@pytest.mark.usefixtures("fault")
async def test_http_fault_is_internal_and_logged_once(
    triton: EmbeddedTriton, photo: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with start_service(triton.url) as service, serve_http(service) as client:
        answer = await client.post("/v1/colorize", content=photo)
    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:rehue:problem:internal"
    assert answer.json()["detail"] == "The server failed on this photograph."
    assert SECRET not in answer.text
    assert list_outcomes(caplog) == [("ERROR", "INTERNAL")]
    assert list_causes(caplog) == [SECRET]


@pytest.mark.usefixtures("fault")
@pytest.mark.parametrize("stream", [False, True])
async def test_grpc_fault_is_internal_and_logged_once(
    triton: EmbeddedTriton, photo: bytes, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    caplog.set_level(logging.INFO)
    request = rehue_pb2.ColorizeRequest(image=photo)
    async with start_service(triton.url) as service, serve_grpc(service) as stub:
        if stream:
            (answer,) = [answer async for answer in stub.ColorizeStream(iter([request]))]
            code, message = answer.error.code, answer.error.message
        else:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Colorize(request)
            code, message = caught.value.code().value[0], caught.value.details()
    assert code == grpc.StatusCode.INTERNAL.value[0]
    assert message == "The server failed on this photograph."
    assert list_outcomes(caplog) == [("ERROR", "INTERNAL")]
    assert list_causes(caplog) == [SECRET]


async def test_faults_outside_the_pipeline_are_internal_too(
    triton: EmbeddedTriton,
    photo: bytes,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An unexpected error of any step, here of the keys, is not blamed on the caller."""

    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied", SECRET)

    monkeypatch.setattr(ApiKeys, "authenticate", fail)
    caplog.set_level(logging.INFO)
    async with start_service(triton.url) as service:
        async with serve_http(service) as client:
            answers = [
                await client.post("/v1/colorize", content=photo),
                await client.get("/v1/models"),
            ]
        async with serve_grpc(service) as stub:
            request = rehue_pb2.ColorizeRequest(image=photo)
            errors = []
            for call in (stub.Colorize(request), stub.ColorizeStream(iter([request])).read()):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                errors.append(caught.value)
    assert [answer.status_code for answer in answers] == [500, 500]
    assert all(answer.json()["type"] == "urn:rehue:problem:internal" for answer in answers)
    assert [error.code() for error in errors] == [grpc.StatusCode.INTERNAL] * 2
    said = [answer.text for answer in answers] + [str(error.details()) for error in errors]
    assert not any("secret" in text or "Errno" in text for text in said)
    assert list_outcomes(caplog) == [("ERROR", "INTERNAL")] * 3
    assert len(list_causes(caplog)) == 4


async def test_requests_that_the_caller_gives_up_are_no_faults(
    sleepers: list[SleepingTriton], photo: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A cancelled call, and an upload whose connection ends."""

    async def send_half() -> AsyncIterator[bytes]:
        yield photo[:1000]
        await asyncio.sleep(60)

    caplog.set_level(logging.INFO)
    sleepers[0].set_batch_seconds(2)
    try:
        async with start_service(sleepers[0].url) as service:
            async with serve_grpc(service) as stub:
                call = stub.Colorize(rehue_pb2.ColorizeRequest(image=photo))
                await asyncio.sleep(0.5)
                call.cancel()
                await asyncio.sleep(0.2)
            async with serve_http(service) as client:
                upload = asyncio.create_task(client.post("/v1/colorize", content=send_half()))
                await asyncio.sleep(0.2)
                upload.cancel()
                await asyncio.sleep(0.2)
    finally:
        sleepers[0].set_batch_seconds()
    assert list_outcomes(caplog) == [("INFO", "ABANDONED")] * 2
    assert not list_causes(caplog)
