"""The bytes of photographs that a client holds at a time."""

import asyncio
import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from waiting import wait_for

from rehue_client import AsyncClient, Client, Picture, Result
from rehue_client.memory import MemoryBudget
from rehue_client.sources import measure_source
from rehue_serve.testing.scripted import Action, Delay, ScriptedServer, serve

MANY = 1 << 40
# Runs the command; says its exit code, its memory before and at its peak, in bytes.
MEASURED = """
import sys
from pathlib import Path
from rehue_client import command, grpc_transport

def read_memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

before = read_memory("VmRSS")
code = command.main(sys.argv[1:])
print(code, before, read_memory("VmHWM"), file=sys.stderr)
"""


class Holder:
    """Holds bytes in a thread of its own until it is told to stop."""

    def __init__(self, memory: MemoryBudget, size: int) -> None:
        self.holds, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(memory, size), daemon=True)
        self._thread.start()

    def _hold(self, memory: MemoryBudget, size: int) -> None:
        with memory.hold(size):
            self.holds.set()
            self._stop.wait(10)

    def waits(self) -> bool:
        return not self.holds.wait(0.05)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)


def start_in_turn(memory: MemoryBudget, *sizes: int) -> Iterator[Holder]:
    for size in sizes:
        yield Holder(memory, size)
        time.sleep(0.05)


def test_bytes_wait_for_room_in_the_order_of_asking() -> None:
    memory = MemoryBudget(100)
    first, large, small = start_in_turn(memory, 60, 50, 10)
    assert first.holds.wait(5)
    assert large.waits()
    assert small.waits()  # or small ones would pass a large one for ever
    first.stop()
    assert large.holds.wait(5)
    assert small.holds.wait(5)
    large.stop()
    small.stop()


def test_what_exceeds_the_limit_is_sent_alone() -> None:
    memory = MemoryBudget(100)
    first, huge, last = start_in_turn(memory, 1, 1000, 1)
    assert huge.waits()
    first.stop()
    assert huge.holds.wait(5)
    assert last.waits()
    huge.stop()
    assert last.holds.wait(5)
    last.stop()


async def test_a_cancelled_call_gives_its_bytes_back() -> None:
    """Whether it still waits for them, is being served, or has them."""
    memory = MemoryBudget(100)

    async def hold(size: int, seconds: float = 10) -> None:
        async with memory.hold_async(size):
            await asyncio.sleep(seconds)

    has, waits = asyncio.ensure_future(hold(80)), asyncio.ensure_future(hold(90))
    behind = asyncio.ensure_future(hold(20, 0))
    await asyncio.sleep(0.01)
    waits.cancel()
    await asyncio.wait_for(behind, 5)
    served = asyncio.ensure_future(hold(100))
    await asyncio.sleep(0.01)
    has.cancel()
    await asyncio.sleep(0)  # its bytes are given to the next one, which has not run yet
    served.cancel()
    await asyncio.wait_for(hold(100, 0), 5)
    assert all(isinstance(e, asyncio.CancelledError) for e in await asyncio.gather(
        has, waits, served, return_exceptions=True))  # fmt: skip


def test_threads_and_event_loops_share_the_bytes() -> None:
    memory, used, most = MemoryBudget(100), [0], [0]
    lock = threading.Lock()

    def count(size: int) -> None:
        with lock:
            used[0] += size
            most[0] = max(most[0], used[0])

    async def run(sizes: list[int]) -> None:
        async def hold(size: int) -> None:
            async with memory.hold_async(size):
                count(size)
                await asyncio.sleep(0.0001)
                count(-size)

        await asyncio.gather(*map(hold, sizes))

    def run_thread(sizes: list[int]) -> None:
        for size in sizes:
            with memory.hold(size):
                count(size)
                count(-size)

    sizes = [number * 7 % 60 for number in range(500)]
    with ThreadPoolExecutor(8) as pool:
        loops = [pool.submit(asyncio.run, run(sizes)) for _ in range(2)]
        threads = [pool.submit(run_thread, sizes) for _ in range(4)]
        for future in (*loops, *threads):
            future.result(30)
    assert used == [0]
    assert 60 < most[0] <= 100


def test_sources_are_measured_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(bytes(1234))
    assert measure_source(path, MANY) == measure_source(str(path), MANY) == 1234
    with path.open("rb") as file:
        assert measure_source(file, MANY) == 1234
    assert measure_source(bytearray(12), MANY) == 12
    assert measure_source(np.zeros((10, 20, 3), np.uint16), MANY) == 1200
    assert measure_source(Image.new("RGB", (10, 20)), MANY) == 600
    # A file over the limit is not read; bytes are the caller's; the others' size is not known.
    assert measure_source(path, 1000) == measure_source(b"abc", MANY) == 0
    unknown: list[Any] = [tmp_path / "nowhere.jpg", "\0", 3.5, io.BytesIO(b"abc"), io.StringIO()]
    assert [measure_source(source, MANY) for source in unknown] == [0] * 5


def test_the_limit_is_positive() -> None:
    with pytest.raises(ValueError, match="bytes in flight must be at least 1"):
        Client("http://127.0.0.1:1", bytes_in_flight=0)


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    with serve(ScriptedServer()) as server:
        yield server


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Eight files of 1000 bytes."""
    paths = [tmp_path / f"{number}.jpg" for number in range(8)]
    for path in paths:
        path.write_bytes(bytes(1000))
    return paths


def colorize_sync(url: str, files: list[Path], **options: Any) -> list[Picture | None]:
    with Client(url, **options) as client, ThreadPoolExecutor(8) as pool:
        return list(pool.map(client.colorize, files))


def colorize_many_sync(url: str, files: list[Path], **options: Any) -> list[Picture | None]:
    with Client(url, **options) as client:
        return [result.picture for result in client.colorize_many(files)]


def colorize_async(url: str, files: list[Path], **options: Any) -> list[Picture | None]:
    async def run() -> list[Picture | None]:
        async with AsyncClient(url, **options) as client:
            return list(await asyncio.gather(*map(client.colorize, files)))

    return asyncio.run(run())


def colorize_many_async(url: str, files: list[Path], **options: Any) -> list[Picture | None]:
    async def run() -> list[Result]:
        async with AsyncClient(url, **options) as client:
            return [result async for result in client.colorize_many(files)]

    return [result.picture for result in asyncio.run(run())]


@pytest.mark.parametrize(
    "colorize", [colorize_sync, colorize_many_sync, colorize_async, colorize_many_async]
)
@pytest.mark.parametrize(("limit", "at_once"), [(3500, 3), (999, 1), (1 << 20, 8)])
def test_calls_hold_as_many_photographs_as_fit(
    scripted: ScriptedServer,
    files: list[Path],
    colorize: Callable[..., list[Picture | None]],
    limit: int,
    at_once: int,
) -> None:
    def wait_for_others(_: bytes) -> Action:
        wait_for(lambda: scripted.most_at_once >= at_once)
        return Delay(0.02)  # in which one too many would come

    scripted.always = wait_for_others
    assert all(colorize(scripted.http_url, files, bytes_in_flight=limit))
    assert len(scripted.requests) == 8
    assert scripted.most_at_once == at_once


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_command_takes_the_memory_of_one_large_file(
    scripted: ScriptedServer, tmp_path: Path, protocol: str
) -> None:
    """Of the file and its picture; the server's picture is the file itself."""
    folder, size, count = tmp_path / "in", 50_000_000, 4
    folder.mkdir()
    for number in range(count):
        with (folder / f"{number}.jpg").open("wb") as file:
            file.truncate(size)
    command = [
        *(sys.executable, "-c", MEASURED, "colorize", str(folder), "-o", str(tmp_path / "out")),
        *("--server", getattr(scripted, f"{protocol}_url"), "--bytes-in-flight", str(size)),
    ]
    run = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    code, before, peak = map(int, run.stderr.split()[-3:])
    assert code == 0
    assert len(scripted.requests) == count
    assert peak - before < 3.4 * size  # two bodies, one more picture that is being written


def test_a_wait_for_room_can_be_cancelled(scripted: ScriptedServer, files: list[Path]) -> None:
    scripted.always = lambda _: Delay(1)

    async def run() -> None:
        async with AsyncClient(scripted.http_url, bytes_in_flight=1000) as client:
            calls = [asyncio.ensure_future(client.colorize(path)) for path in files]
            await asyncio.to_thread(wait_for, lambda: len(scripted.requests) == 1)
            for call in calls[1:]:
                call.cancel()
            assert await asyncio.wait_for(calls[0], 10)

    asyncio.run(run())
    assert len(scripted.requests) == 1
