"""What the service refuses, with which messages: keys, overload, no Triton, internal faults."""

import asyncio
import contextlib
import io
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from bad_images import encode_image
from PIL import Image
from serving import serve_http, start_service
from skimage.color import lab2rgb, rgb2lab

from rehue_serve import images, stages
from rehue_serve.embedded import EmbeddedTriton
from rehue_serve.testing.tritons import SleepingTriton


@contextlib.asynccontextmanager
async def open_service(url: str, **options: object) -> AsyncIterator[httpx.AsyncClient]:
    async with start_service(url, **options) as service, serve_http(service) as client:
        yield client


async def test_keys(triton: EmbeddedTriton, tmp_path: Path, photo: bytes) -> None:
    keys = tmp_path / "keys"
    keys.write_text("first\nsecond\n")
    async with open_service(triton.url, api_keys_file=keys) as client:

        async def status(*given: str) -> int:
            headers = {"Authorization": given[0]} if given else {}
            answer = await client.post("/v1/colorize", content=photo, headers=headers)
            if answer.status_code == 401:
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.json()["type"] == "urn:rehue:problem:unauthenticated"
                assert "first" not in answer.text
            return answer.status_code

        assert await status() == 401
        assert await status("Bearer third") == 401
        assert await status("Bearer") == 401
        assert await status("Basic second") == 401
        assert await status("Bearer second") == 200
        assert (await client.get("/v1/models")).status_code == 401
        assert (await client.get("/healthz")).status_code == 200
        keys.write_text("third\n")
        os.utime(keys, (0, 0))  # another time of change, whatever the clock's steps
        async with asyncio.timeout(5):
            while await status("Bearer second") != 401:
                await asyncio.sleep(0.1)
        assert await status("Bearer third") == 200


async def test_overload_is_refused_at_once(triton: EmbeddedTriton, photo: bytes) -> None:
    async with open_service(triton.url, max_requests=4) as client:
        await client.post("/v1/colorize", content=photo)
        answers = await asyncio.gather(
            *(client.post("/v1/colorize", content=photo) for _ in range(12))
        )
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == 8
    assert sum(answer.status_code == 200 for answer in answers) == 4
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert refused[0].json()["type"] == "urn:rehue:problem:overloaded"


async def test_one_key_cannot_take_every_place(
    sleepers: list[SleepingTriton], tmp_path: Path, photo: bytes
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("greedy\nmodest\n")
    sleepers[0].set_batch_seconds(1)
    try:
        async with open_service(sleepers[0].url, max_requests=8, api_keys_file=keys) as client:

            async def send(key: str) -> httpx.Response:
                headers = {"Authorization": f"Bearer {key}"}
                return await client.post("/v1/colorize", content=photo, headers=headers)

            many = [asyncio.create_task(send("greedy")) for _ in range(20)]
            await asyncio.sleep(0.3)
            other = await send("modest")
            answers = await asyncio.gather(*many)
    finally:
        sleepers[0].set_batch_seconds()
    assert other.status_code == 200
    assert sum(answer.status_code == 200 for answer in answers) == 6
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == 14
    assert "this API key" in refused[0].json()["detail"]
    assert int(refused[0].headers["retry-after"]) >= 1


async def test_retry_after_is_how_long_photographs_take(
    sleepers: list[SleepingTriton], photo: bytes
) -> None:
    """A client that retries after it finds free places."""
    sleepers[0].set_batch_seconds(1.5)  # of a call; the photographs go in one or two
    try:
        async with open_service(sleepers[0].url, max_requests=4) as client:
            for _ in range(2):
                answers = await asyncio.gather(
                    *(client.post("/v1/colorize", content=photo) for _ in range(5))
                )
    finally:
        sleepers[0].set_batch_seconds()
    (refused,) = (answer for answer in answers if answer.status_code == 429)
    assert 2 <= int(refused.headers["retry-after"]) <= 4


async def test_deadline_ends_a_slow_upload(triton: EmbeddedTriton, photo: bytes) -> None:
    """Until then it takes no place from a photograph."""

    async def slowly() -> AsyncIterator[bytes]:
        yield photo[:1000]
        await asyncio.sleep(60)

    async with open_service(triton.url, max_requests=1) as client:
        slow = asyncio.create_task(
            client.post("/v1/colorize", content=slowly(), headers={"X-Request-Timeout": "0.5"})
        )
        await asyncio.sleep(0.1)
        assert (await client.post("/v1/colorize", content=photo)).status_code == 200
        assert (await slow).status_code == 504
        assert (await client.post("/v1/colorize", content=photo)).status_code == 200


async def test_abandoned_work_is_not_started(
    triton: EmbeddedTriton, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for a thread when its deadline passes is never decoded."""
    decoded = 0
    decode = images.decode_page

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal decoded
        decoded += 1
        time.sleep(1)
        return decode(*arguments, **options)

    async with open_service(triton.url, threads=1) as client:
        monkeypatch.setattr(images, "decode_page", counted)
        first = asyncio.create_task(client.post("/v1/colorize", content=photo))
        while not decoded:
            await asyncio.sleep(0.01)
        late = await client.post(
            "/v1/colorize", content=photo, headers={"X-Request-Timeout": "0.1"}
        )
        assert late.status_code == 504
        assert (await first).status_code == 200
    assert decoded == 1


async def test_a_stop_lets_uploads_in_progress_finish(triton: EmbeddedTriton, photo: bytes) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield photo[:1000]
        await asyncio.sleep(1)
        yield photo[1000:]

    async with start_service(triton.url) as service, serve_http(service) as client:
        upload = asyncio.create_task(client.post("/v1/colorize", content=slowly()))
        await asyncio.sleep(0.3)
        draining = asyncio.create_task(service.drain())
        await asyncio.sleep(0.1)
        late = await client.post("/v1/colorize", content=photo)
        assert not draining.done()
        assert (await upload).status_code == 200
        await asyncio.wait_for(draining, 5)
    assert late.status_code == 503
    assert int(late.headers["retry-after"]) >= 1


async def test_photographs_wait_for_memory(triton: EmbeddedTriton, photo: bytes) -> None:
    """Each needs more than the limit, so one is worked on at a time, and none is refused."""
    async with (
        start_service(triton.url, work_memory=1000) as service,
        serve_http(service) as client,
    ):
        answers = await asyncio.gather(
            *(client.post("/v1/colorize", content=photo) for _ in range(4))
        )
    assert [answer.status_code for answer in answers] == [200] * 4


async def test_missing_triton_is_reported_with_retry_after(photo: bytes) -> None:
    async with open_service("127.0.0.1:9") as client:
        answer = await client.post("/v1/colorize", content=photo)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200


async def test_colour_and_sepia_count_as_their_lightness(
    triton: EmbeddedTriton, photo: bytes
) -> None:
    colour = Image.open(io.BytesIO(photo))
    truth = rgb2lab(np.asarray(colour))
    tones = {"gray": (0, 0), "sepia": (8, 22)}
    pictures = {}
    async with open_service(triton.url) as client:
        for name, (a, b) in tones.items():
            toned = np.dstack([truth[..., 0], np.full((*truth.shape[:2], 2), (a, b))])
            data = encode_image(
                Image.fromarray(np.rint(lab2rgb(toned) * 255).astype(np.uint8)), "PNG"
            )
            pictures[name] = (await client.post("/v1/colorize", content=data)).content
        answer = await client.post("/v1/colorize", content=photo, params={"format": "png"})
        pictures["colour"] = answer.content
    pixels = {
        name: np.asarray(Image.open(io.BytesIO(data))).astype(int)
        for name, data in pictures.items()
    }
    # Eight bits round the three in their own ways.
    assert np.abs(pixels["colour"] - pixels["gray"]).mean() < 5
    assert np.abs(pixels["sepia"] - pixels["gray"]).mean() < 5


async def test_internal_fault_reveals_no_internals(
    triton: EmbeddedTriton, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise MemoryError("/secret/path")

    monkeypatch.setattr(stages, "encode_pictures", broken)
    async with open_service(triton.url) as client:
        answer = await client.post("/v1/colorize", content=photo)
    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:rehue:problem:internal"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
