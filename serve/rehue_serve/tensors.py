"""Tensors to one Triton and back: in the messages, or in memory that both share.

Shared memory is a file in /dev/shm for every call under way, its inputs first and its
outputs behind them. A file whose call ended without an answer is never used again,
because Triton may still write into it; Triton lets it go when it is done.
"""

import asyncio
import fcntl
import logging
import mmap
import os
import secrets
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from rehue_core.colorize import ModelSpec, Tensor
from rehue_core.spec import INPUT, OUTPUT
from rehue_serve.endpoints import Endpoint

log = logging.getLogger(__name__)

FOLDER = Path("/dev/shm")  # noqa: S108  # where POSIX shared memory lies on Linux
PREFIX = "rehue-"
TIMEOUT = 5.0  # seconds, of the calls that tell Triton of a file


@dataclass(frozen=True)
class Answer:
    """What Triton made of the photographs of one call.

    Attributes:
        values: N2hw of the model's output type.
        version: the model's.
    """

    values: Tensor
    version: str


class Shared:
    """One file of shared memory. It is locked as long as this process lives, so that another
    can tell what a crash left behind.
    """

    def __init__(self, size: int) -> None:
        while True:
            self.path = FOLDER / f"{PREFIX}{secrets.token_hex(8)}"
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            if os.fstat(self._file).st_nlink:
                break
            os.close(self._file)  # `sweep` took it for a dead process's, before it was locked
        try:
            # A full /dev/shm is said here; without, the first write into it would kill us.
            os.posix_fallocate(self._file, 0, size)
            self.data = mmap.mmap(self._file, size)
        except OSError:
            self.remove()
            raise

    @property
    def name(self) -> str:
        return self.path.name

    def remove(self) -> None:
        """Its memory goes with the last of those who have it mapped."""
        self.path.unlink(missing_ok=True)
        os.close(self._file)


def sweep() -> None:
    """Removes the files of processes that are gone."""
    for path in FOLDER.glob(f"{PREFIX}*"):
        try:
            file = os.open(path, os.O_RDWR)
        except OSError:  # gone meanwhile, or another user's
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except BlockingIOError:
            pass  # its process lives
        finally:
            os.close(file)


class SharedMemory:
    """The files of one process, by the Triton and the model that they are for."""

    def __init__(self) -> None:
        sweep()
        self._free: dict[Endpoint, dict[ModelSpec, list[Shared]]] = {}
        self._refused: set[str] = set()  # addresses of Tritons that cannot share
        # Names of files that are gone, but that a Triton still has mapped.
        self._left: dict[Endpoint, list[str]] = {}

    async def take(self, endpoint: Endpoint, spec: ModelSpec) -> Shared | None:
        """A file for one call; None where there is nothing to share."""
        if endpoint.address in self._refused or not _local(endpoint.address):
            return None
        # Other calls may change all of it while this one awaits Triton.
        if endpoint not in self._free:
            self._free[endpoint] = defaultdict(list)
            found = await _left_behind(endpoint)
            self._left.setdefault(endpoint, []).extend(found)
        if names := self._left.pop(endpoint, []):
            used = await _unregister(endpoint, names)
            self._left.setdefault(endpoint, []).extend(used)
        free = self._free.setdefault(endpoint, defaultdict(list))[spec]
        return free.pop() if free else await self._new(endpoint, spec)

    async def _new(self, endpoint: Endpoint, spec: ModelSpec) -> Shared | None:
        try:
            shared = Shared(spec.max_batch * (_input_bytes(spec) + _output_bytes(spec)))
        except OSError as error:
            log.warning("no shared memory for triton %s: %s", endpoint.address, error)
            return None
        request = service_pb2.SystemSharedMemoryRegisterRequest(
            name=shared.name, key=f"/{shared.name}", byte_size=len(shared.data)
        )
        try:
            await endpoint.stub.SystemSharedMemoryRegister(request, timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            shared.remove()
            if error.code() != grpc.StatusCode.UNAVAILABLE:  # that one may come back
                log.warning("triton %s shares no memory: %s", endpoint.address, error.details())
                self._refused.add(endpoint.address)
            return None
        except asyncio.CancelledError:
            shared.remove()
            raise
        return shared

    def give(self, endpoint: Endpoint, spec: ModelSpec, shared: Shared) -> None:
        """The call is answered."""
        if endpoint in self._free:
            self._free[endpoint][spec].append(shared)
        else:
            shared.remove()

    def abandon(self, endpoint: Endpoint, shared: Shared) -> None:
        """The call ended without an answer: Triton may still write into the file."""
        shared.remove()
        self._left.setdefault(endpoint, []).append(shared.name)

    def forget(self, endpoint: Endpoint) -> None:
        """This Triton was started again and knows none of the files."""
        for free in self._free.pop(endpoint, {}).values():
            for shared in free:
                shared.remove()

    async def close(self) -> None:
        for endpoint in list(self._free):
            names = [one.name for free in self._free[endpoint].values() for one in free]
            self.forget(endpoint)
            names += self._left.pop(endpoint, [])
            for _ in range(20):  # Triton lets go a moment after its answer
                names = await _unregister(endpoint, names)
                if not names:
                    break
                await asyncio.sleep(0.05)


async def _left_behind(endpoint: Endpoint) -> list[str]:
    """Files that this Triton has mapped and that nobody else has any more."""
    request = service_pb2.SystemSharedMemoryStatusRequest()
    try:
        answer = await endpoint.stub.SystemSharedMemoryStatus(request, timeout=TIMEOUT)
    except grpc.aio.AioRpcError:
        return []
    return [
        name for name in answer.regions if name.startswith(PREFIX) and not (FOLDER / name).exists()
    ]


async def _unregister(endpoint: Endpoint, names: Sequence[str]) -> list[str]:
    """Returns those that Triton still works with."""
    used = []
    for name in names:
        request = service_pb2.SystemSharedMemoryUnregisterRequest(name=name)
        try:
            await endpoint.stub.SystemSharedMemoryUnregister(request, timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            if "in use" in (error.details() or ""):
                used.append(name)
    return used


def _local(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


async def infer(
    endpoint: Endpoint,
    spec: ModelSpec,
    inputs: Sequence[Tensor],
    *,
    timeout: float,
    metadata: Sequence[tuple[str, str]] = (),
    memory: SharedMemory | None = None,
) -> Answer:
    """One call to one Triton, with photographs of one model.

    Args:
        inputs: 1HW each, of the model's input type.

    Raises:
        grpc.aio.AioRpcError: as Triton or the way to it has it.
        ValueError, IndexError: the answer breaks the contract.
    """
    request = _request(spec, len(inputs))
    shared = await memory.take(endpoint, spec) if memory else None
    if memory is None or shared is None:
        request.raw_input_contents.append(b"".join(one.tobytes() for one in inputs))
        answer = await endpoint.stub.ModelInfer(request, timeout=timeout, metadata=metadata)
        return _answer(answer, answer.raw_output_contents[0], spec, len(inputs))
    try:
        _point(request, spec, shared, inputs)
        answer = await endpoint.stub.ModelInfer(request, timeout=timeout, metadata=metadata)
        start = spec.max_batch * _input_bytes(spec)
        data = shared.data[start : start + len(inputs) * _output_bytes(spec)]
        made = _answer(answer, data, spec, len(inputs))
    except BaseException as error:
        memory.abandon(endpoint, shared)
        if isinstance(error, grpc.aio.AioRpcError) and unknown(error.details() or ""):
            memory.forget(endpoint)
        raise
    memory.give(endpoint, spec, shared)
    return made


def _request(spec: ModelSpec, count: int) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name=spec.name)
    tensor = request.inputs.add(name=INPUT, datatype=_wire_name(spec.input_type))
    tensor.shape.extend((count, 1, spec.height, spec.width))
    request.outputs.add(name=OUTPUT)
    return request


def _point(
    request: service_pb2.ModelInferRequest,
    spec: ModelSpec,
    shared: Shared,
    inputs: Sequence[Tensor],
) -> None:
    """Writes the inputs into the file, and says in the request where they and the outputs are."""
    size = _input_bytes(spec)
    for number, one in enumerate(inputs):
        shared.data[number * size : (number + 1) * size] = one.tobytes()
    places = (
        (request.inputs[0], 0, len(inputs) * size),
        (request.outputs[0], spec.max_batch * size, len(inputs) * _output_bytes(spec)),
    )
    for tensor, offset, length in places:
        tensor.parameters["shared_memory_region"].string_param = shared.name
        tensor.parameters["shared_memory_byte_size"].int64_param = length
        tensor.parameters["shared_memory_offset"].int64_param = offset


def _answer(
    answer: service_pb2.ModelInferResponse, data: bytes, spec: ModelSpec, count: int
) -> Answer:
    values: Tensor = np.frombuffer(data, spec.output_type).reshape(tuple(answer.outputs[0].shape))
    if len(values) != count:
        raise ValueError(f"{len(values)} answers for {count} photographs")
    return Answer(values, answer.model_version)


def unknown(details: str) -> bool:
    """Whether a Triton's error says that it does not know the file: it was started again."""
    return "Unable to find shared memory region" in details


def _input_bytes(spec: ModelSpec) -> int:
    return spec.height * spec.width * spec.input_type.itemsize


def _output_bytes(spec: ModelSpec) -> int:
    return 2 * spec.ab_height * spec.ab_width * spec.output_type.itemsize


def _wire_name(dtype: np.dtype[np.generic]) -> str:
    return {"u": "UINT", "i": "INT", "f": "FP"}[dtype.kind] + str(dtype.itemsize * 8)
