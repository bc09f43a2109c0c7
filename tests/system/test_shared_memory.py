"""Memory shared with a real Triton, and its cleanup after crashes."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
from triton_calls import infer_random, open_client
from tritonclient.grpc import service_pb2

from rehue_serve import shared_memory
from rehue_serve.embedded import EmbeddedTriton
from rehue_serve.endpoints import Endpoint
from rehue_serve.errors import DeadlineExceeded
from rehue_serve.testing.tritons import SleepingTriton
from rehue_serve.triton import TritonClient

# Shares memory with the Triton at argv[1], says so, and waits to be killed.
CRASHES = """
import asyncio, sys
from triton_calls import open_client, infer_random

async def main():
    async with open_client(sys.argv[1], shared_memory=True) as there:
        await infer_random(there)
        print("shared", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def list_files() -> set[str]:
    return {path.name for path in shared_memory.FOLDER.glob(f"{shared_memory.PREFIX}*")}


async def list_regions(there: TritonClient) -> set[str]:
    """Files that Triton has mapped."""
    stub = there.endpoints.list_all()[0].stub
    answer = await stub.SystemSharedMemoryStatus(service_pb2.SystemSharedMemoryStatusRequest())
    return {name for name in answer.regions if name.startswith(shared_memory.PREFIX)}


async def test_nothing_is_left_at_the_end(triton: EmbeddedTriton) -> None:
    before = list_files()
    async with (
        open_client(triton.url, shared_memory=True) as there,
        open_client(triton.url) as other,
    ):
        await asyncio.gather(*(infer_random(there, seed) for seed in range(20)))
        mine = list_files() - before
        assert 1 <= len(mine) <= 2  # one for each call under way
        assert mine <= await list_regions(there)
        await there.close()
        assert not mine & (list_files() | await list_regions(other))


def crash_client(url: str) -> None:
    """A process that shares memory with this Triton is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", CRASHES, url],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "shared\n"  # type: ignore[union-attr]
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


async def test_a_crash_leaves_nothing(triton: EmbeddedTriton) -> None:
    before = list_files()
    await asyncio.to_thread(crash_client, triton.url)
    left = list_files() - before
    assert left
    async with open_client(triton.url, shared_memory=True) as there:
        await infer_random(there)
        assert not left & (list_files() | await list_regions(there))


async def test_triton_that_was_started_again_shares_again(tmp_path: Path) -> None:
    with SleepingTriton(tmp_path) as triton:
        async with open_client(triton.url, shared_memory=True) as there:
            await infer_random(there)
            before = await list_regions(there)
            # What a Triton knows after a start: none of the files.
            stub = there.endpoints.list_all()[0].stub
            request = service_pb2.SystemSharedMemoryUnregisterRequest()
            while await list_regions(
                there
            ):  # refused while Triton still holds what it just answered
                with contextlib.suppress(grpc.RpcError):
                    await stub.SystemSharedMemoryUnregister(request)
            await asyncio.gather(*(infer_random(there, seed) for seed in range(30)))
            assert there.ready
            assert await list_regions(there)
            assert not before & await list_regions(there)
            triton.stop()
            await asyncio.to_thread(triton.start)
            while not there.ready:
                await asyncio.sleep(0.05)
            await asyncio.gather(*(infer_random(there, seed) for seed in range(30)))
            assert await list_regions(there)


async def test_files_dropped_by_another_call_are_created_again(
    triton: EmbeddedTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = shared_memory._list_stale_regions
    async with open_client(triton.url, shared_memory=True) as there:

        async def forgotten(endpoint: Endpoint) -> list[str]:
            there._memory.forget(endpoint)  # type: ignore[union-attr]
            return await look(endpoint)

        monkeypatch.setattr(shared_memory, "_list_stale_regions", forgotten)
        assert isinstance(await infer_random(there, seconds=5), np.ndarray)
        assert await list_regions(there)


async def test_file_that_triton_may_still_write_into_is_not_used_again(tmp_path: Path) -> None:
    with SleepingTriton(tmp_path) as triton:
        async with open_client(triton.url, shared_memory=True) as there:
            await infer_random(there)
            before = await list_regions(there)
            triton.set_batch_seconds(1.0)
            with pytest.raises(DeadlineExceeded):
                await infer_random(there, seconds=0.3)
            triton.set_batch_seconds()
            assert isinstance(await infer_random(there), np.ndarray)
            assert not before & list_files()
            while before & await list_regions(there):  # until Triton is done with it
                await asyncio.sleep(0.1)
                await infer_random(there)


async def test_nothing_is_shared_across_hosts() -> None:
    memory = shared_memory.SharedMemory()
    for address in ("192.0.2.1:8001", "triton:8001", "[2001:db8::1]:8001"):
        endpoint = Endpoint(address, 2)
        assert await memory.acquire(endpoint, None) is None  # type: ignore[arg-type]
        await endpoint.channel.close()


def test_sweep_leaves_what_is_in_use() -> None:
    mine = shared_memory.SharedFile(100)
    (shared_memory.FOLDER / f"{shared_memory.PREFIX}dead").write_bytes(b"x")
    shared_memory.remove_stale_files()
    assert mine.name in list_files()
    assert f"{shared_memory.PREFIX}dead" not in list_files()
    mine.remove()
    assert mine.name not in list_files()
