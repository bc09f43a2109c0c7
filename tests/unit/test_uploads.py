"""The limits of uploads: rate, pauses, time, number and memory."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from rehue_serve import uploads
from rehue_serve.errors import DeadlineExceeded, Overloaded
from rehue_serve.settings import Settings
from rehue_serve.uploads import Upload, Uploads

Send = Callable[[Upload], Awaitable[None]]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "GRACE", 0.2)
    monkeypatch.setattr(uploads, "MAX_PAUSE", 1.0)


async def receive(limits: Uploads, send: Send) -> None:
    with limits.hold() as upload:
        async with upload.receive():
            await send(upload)


def trickle(size: int, pause: float, count: int = 1000) -> Send:
    """Sends parts of a size, with a pause after each."""

    async def send(upload: Upload) -> None:
        for _ in range(count):
            upload.add(size)
            await asyncio.sleep(pause)

    return send


async def test_a_trickle_is_ended() -> None:
    limits = Uploads(Settings(upload_rate=1000))
    async with asyncio.timeout(2):
        with pytest.raises(DeadlineExceeded, match="1,000 bytes a second"):
            await receive(limits, trickle(1, 0.01))
    assert not limits.in_progress


async def test_a_slow_but_steady_upload_is_received() -> None:
    limits = Uploads(Settings(upload_rate=1000))
    await receive(limits, trickle(100, 0.05, count=12))  # 2000 bytes a second


async def test_a_pause_ends_an_upload_that_was_quick_before() -> None:
    limits = Uploads(Settings(upload_rate=1000))
    async with asyncio.timeout(3):
        with pytest.raises(DeadlineExceeded):
            await receive(limits, trickle(1_000_000, 60))


async def test_the_time_of_an_upload_has_a_limit() -> None:
    limits = Uploads(Settings(upload_timeout=0.4))
    async with asyncio.timeout(2):
        with pytest.raises(DeadlineExceeded, match=r"0\.4 seconds"):
            await receive(limits, trickle(100_000, 0.01))


async def test_their_number_has_a_limit() -> None:
    limits = Uploads(Settings(max_uploads=2))
    with limits.hold(), limits.hold(), pytest.raises(Overloaded), limits.hold():
        pass
    with limits.hold():
        pass


async def test_memory_is_taken_from_the_slowest_holder() -> None:
    """An upload that filled the memory and then trickles gives way to an honest one."""
    limits = Uploads(Settings(upload_memory=1_000_000, upload_rate=1))

    async def fill_and_trickle(upload: Upload) -> None:
        upload.add(900_000)
        await trickle(10, 0.02)(upload)

    filler = asyncio.create_task(receive(limits, fill_and_trickle))
    await asyncio.sleep(0.1)
    limits_rate = trickle(30_000, 0.01, count=20)
    await receive(limits, limits_rate)
    with pytest.raises(Overloaded, match="bytes of uploads"):
        await filler


async def test_bodies_in_work_keep_their_memory() -> None:
    """Only uploads that are still received give way."""
    limits = Uploads(Settings(upload_memory=1000))
    with limits.hold() as done:
        async with done.receive():
            done.add(900)
        with pytest.raises(Overloaded):
            await receive(limits, trickle(200, 0, count=1))
    await receive(limits, trickle(200, 0, count=1))


async def read(limits: Uploads, size: int, part: int, pause: float) -> None:
    """Send an answer to a caller who reads a part, pauses, and so on."""
    async with limits.send(size) as answer:
        for _ in range(0, size, part):
            await asyncio.sleep(pause)
            answer.record(part)


async def test_a_slow_reader_is_ended() -> None:
    limits = Uploads(Settings(upload_rate=1000))
    async with asyncio.timeout(2):
        with pytest.raises(DeadlineExceeded, match="1,000 bytes a second"):
            await read(limits, 10_000, 1, 0.01)
    assert not limits.in_progress
    await read(limits, 1000, 100, 0.05)  # 2000 bytes a second


async def test_the_answer_that_is_read_slowest_gives_way() -> None:
    """To uploads and answers; one answer alone may be larger than the memory."""
    limits = Uploads(Settings(upload_memory=1_000_000, upload_rate=1))
    slow = asyncio.create_task(read(limits, 2_000_000, 10, 0.02))
    await asyncio.sleep(0.1)
    await receive(limits, trickle(30_000, 0.01, count=20))
    with pytest.raises(Overloaded, match="bytes of uploads and answers"):
        await slow
    slow = asyncio.create_task(read(limits, 900_000, 10, 0.02))
    await asyncio.sleep(0.1)
    await read(limits, 900_000, 90_000, 0.01)
    with pytest.raises(Overloaded):
        await slow
