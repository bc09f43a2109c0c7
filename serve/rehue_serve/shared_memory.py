"""Memory that this process shares with Tritons on the same host.

Each call in flight has one file in /dev/shm: the inputs first, the outputs after them. A file
whose call ended without a response is never used again, because Triton may still write into it.
"""

import asyncio
import fcntl
import logging
import mmap
import os
import secrets
from collections import defaultdict
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2

from rehue_core.colorize import ModelSpec
from rehue_serve.endpoints import Endpoint

log = logging.getLogger(__name__)

FOLDER = Path("/dev/shm")  # noqa: S108  # POSIX shared memory on Linux
PREFIX = "rehue-"
REGISTER_TIMEOUT = 5.0  # seconds, for the calls that tell Triton of a file


class SharedFile:
    """One file of shared memory.

    It stays locked while this process lives, so that others recognize what a crash left behind.
    """

    def __init__(self, size: int) -> None:
        while True:
            self.path = FOLDER / f"{PREFIX}{secrets.token_hex(8)}"
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            if os.fstat(self._file).st_nlink:
                break
            os.close(self._file)  # `remove_stale_files` deleted it before it was locked
        try:
            # Fails here if /dev/shm is full; otherwise the first write would kill the process.
            os.posix_fallocate(self._file, 0, size)
            self.data = mmap.mmap(self._file, size)
        except OSError:
            self.remove()
            raise

    @property
    def name(self) -> str:
        return self.path.name

    def remove(self) -> None:
        """Unlink the file. Its memory is freed when nobody maps it any more."""
        self.path.unlink(missing_ok=True)
        os.close(self._file)


def remove_stale_files() -> None:
    """Remove the files of processes that have ended."""
    for path in FOLDER.glob(f"{PREFIX}*"):
        try:
            file = os.open(path, os.O_RDWR)
        except OSError:  # removed meanwhile, or another user's
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except BlockingIOError:
            pass  # its process is alive
        finally:
            os.close(file)


class SharedMemory:
    """The files of this process, by Triton and model."""

    def __init__(self) -> None:
        remove_stale_files()
        self._free: dict[Endpoint, dict[ModelSpec, list[SharedFile]]] = {}
        self._unable: set[str] = set()  # addresses of Tritons that cannot share memory
        # Names of removed files that a Triton still maps.
        self._to_unregister: dict[Endpoint, list[str]] = {}

    async def acquire(self, endpoint: Endpoint, spec: ModelSpec) -> SharedFile | None:
        """Return a registered file for one call. None if memory cannot be shared."""
        if endpoint.address in self._unable or not _is_loopback(endpoint.address):
            return None
        # Other calls may change all of this while this one awaits Triton.
        if endpoint not in self._free:
            self._free[endpoint] = defaultdict(list)
            stale = await _list_stale_regions(endpoint)
            self._to_unregister.setdefault(endpoint, []).extend(stale)
        if names := self._to_unregister.pop(endpoint, []):
            in_use = await _unregister(endpoint, names)
            self._to_unregister.setdefault(endpoint, []).extend(in_use)
        free = self._free.setdefault(endpoint, defaultdict(list))[spec]
        return free.pop() if free else await self._register_file(endpoint, spec)

    async def _register_file(self, endpoint: Endpoint, spec: ModelSpec) -> SharedFile | None:
        try:
            file = SharedFile(spec.max_batch * (count_input_bytes(spec) + count_output_bytes(spec)))
        except OSError as error:
            log.warning("no shared memory for triton %s: %s", endpoint.address, error)
            return None
        request = service_pb2.SystemSharedMemoryRegisterRequest(
            name=file.name, key=f"/{file.name}", byte_size=len(file.data)
        )
        try:
            await endpoint.stub.SystemSharedMemoryRegister(request, timeout=REGISTER_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            file.remove()
            if error.code() != grpc.StatusCode.UNAVAILABLE:  # that one may come back
                log.warning("triton %s cannot share memory: %s", endpoint.address, error.details())
                self._unable.add(endpoint.address)
            return None
        except asyncio.CancelledError:
            file.remove()
            raise
        return file

    def release(self, endpoint: Endpoint, spec: ModelSpec, file: SharedFile) -> None:
        """Return the file of a call that was answered."""
        if endpoint in self._free:
            self._free[endpoint][spec].append(file)
        else:
            file.remove()

    def discard(self, endpoint: Endpoint, file: SharedFile) -> None:
        """Remove the file of a call that ended without a response.

        Triton may still write into it.
        """
        file.remove()
        self._to_unregister.setdefault(endpoint, []).append(file.name)

    def forget(self, endpoint: Endpoint) -> None:
        """Remove all files of a Triton that was restarted and no longer knows them."""
        for files in self._free.pop(endpoint, {}).values():
            for file in files:
                file.remove()

    async def close(self) -> None:
        for endpoint in list(self._free):
            names = [file.name for files in self._free[endpoint].values() for file in files]
            self.forget(endpoint)
            names += self._to_unregister.pop(endpoint, [])
            for _ in range(20):  # Triton releases a region a moment after its response
                names = await _unregister(endpoint, names)
                if not names:
                    break
                await asyncio.sleep(0.05)


async def _list_stale_regions(endpoint: Endpoint) -> list[str]:
    """Return the names of files that this Triton maps although they were removed."""
    request = service_pb2.SystemSharedMemoryStatusRequest()
    try:
        response = await endpoint.stub.SystemSharedMemoryStatus(request, timeout=REGISTER_TIMEOUT)
    except grpc.aio.AioRpcError:
        return []
    return [
        name
        for name in response.regions
        if name.startswith(PREFIX) and not (FOLDER / name).exists()
    ]


async def _unregister(endpoint: Endpoint, names: Sequence[str]) -> list[str]:
    """Unregister files; return those that Triton still uses."""
    in_use = []
    for name in names:
        request = service_pb2.SystemSharedMemoryUnregisterRequest(name=name)
        try:
            await endpoint.stub.SystemSharedMemoryUnregister(request, timeout=REGISTER_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            if "in use" in (error.details() or ""):
                in_use.append(name)
    return in_use


def is_unknown_region(details: str) -> bool:
    """Whether Triton's error says that it does not know the file: it was restarted."""
    return "Unable to find shared memory region" in details


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def count_input_bytes(spec: ModelSpec) -> int:
    """Count the bytes of one photograph's input tensor."""
    return spec.height * spec.width * spec.input_type.itemsize


def count_output_bytes(spec: ModelSpec) -> int:
    """Count the bytes of one photograph's output tensor."""
    return 2 * spec.ab_height * spec.ab_width * spec.output_type.itemsize
