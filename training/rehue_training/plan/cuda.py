"""The GPU of this machine through its driver: its name, memory, streams and clocks.

The driver's own libraries (libcuda, libnvidia-ml) come with every NVIDIA driver and
keep their ABI, so neither PyTorch nor a CUDA toolkit is needed on the node that
builds plans.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

# CUdevice_attribute: compute capability, and what CUDA needs to know of the machine.
MAJOR, MINOR = 75, 76
NAME_BYTES = 256
Pointer = ctypes.c_uint64  # CUdeviceptr


class NoGpu(RuntimeError):
    """There is no NVIDIA GPU here that a plan could be for; the message says why."""


class CudaFailed(RuntimeError):
    """A call to the driver failed; the message holds the call and the driver's reason."""


@dataclass(frozen=True)
class Gpu:
    """What plans are bound to."""

    name: str
    compute_capability: str  # such as "9.0"
    driver: str  # such as "580.82.07"


class Cuda:
    """The first GPU that is visible, with one stream. Belongs to one thread."""

    def __init__(self) -> None:
        """Takes the GPU's primary context, as TensorRT does.

        Raises:
            NoGpu: no driver, no GPU, or GPUs of several kinds: Triton would load the first
                one's plan on all of them.
        """
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError:
            raise NoGpu("there is no NVIDIA driver here (libcuda.so.1 is missing)") from None
        try:
            self._call("cuInit", ctypes.c_uint(0))
            devices = self._devices()
        except CudaFailed as error:
            raise NoGpu(f"the NVIDIA driver shows no GPU ({error})") from None
        names = sorted({self._name(device) for device in devices})
        if len(names) != 1:
            raise NoGpu(
                f"one kind of GPU is needed, there are {' and '.join(names) or 'none'} "
                "(CUDA_VISIBLE_DEVICES chooses)"
            )
        self._device = devices[0]
        context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self._call("cuCtxSetCurrent", context)
        self._stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(self._stream), ctypes.c_uint(1))

    @property
    def stream(self) -> int:
        """The stream's handle, for TensorRT."""
        return int(self._stream.value or 0)

    @property
    def gpu(self) -> Gpu:
        capability = f"{self._attribute(MAJOR)}.{self._attribute(MINOR)}"
        return Gpu(self._name(self._device), capability, driver_version())

    @contextmanager
    def memory(self, size: int) -> Iterator[int]:
        """The address of so many bytes on the GPU.

        Raises:
            CudaFailed: the GPU is full.
        """
        address = Pointer()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        try:
            yield address.value
        finally:
            self._call("cuMemFree_v2", address)

    def upload(self, address: int, array: Array) -> None:
        """Copies a C-contiguous array to the GPU, before what the stream does next.

        Not by cuMemcpyHtoD, which may return before the last bytes are there: it goes
        through the default stream, and this one does not wait for that.
        """
        self._call("cuMemcpyHtoDAsync_v2", Pointer(address), *_host(array), self._stream)
        self._call("cuStreamSynchronize", self._stream)

    def download(self, array: Array, address: int) -> None:
        """Fills a C-contiguous array from the GPU, after what the stream still does."""
        self._call("cuStreamSynchronize", self._stream)
        self._call("cuMemcpyDtoH_v2", *_host(array)[:1], Pointer(address), *_host(array)[1:])

    def copy(self, there: int, here: int, size: int) -> None:
        """Queues a copy within the GPU's memory."""
        length = ctypes.c_size_t(size)
        self._call("cuMemcpyDtoDAsync_v2", Pointer(there), Pointer(here), length, self._stream)

    @contextmanager
    def graph(self, work: Callable[[], object]) -> Iterator[Callable[[], None]]:
        """A CUDA graph of what `work` queues on the stream: calling it queues all of it."""
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        # 2: CU_STREAM_CAPTURE_MODE_RELAXED.
        self._call("cuStreamBeginCapture_v2", self._stream, ctypes.c_int(2))
        try:
            work()
        except BaseException:
            # The stream is free again; that the capture failed too says nothing new.
            self._library.cuStreamEndCapture(self._stream, ctypes.byref(graph))
            raise
        self._call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        flags = ctypes.c_ulonglong(0)
        self._call("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, flags)
        try:
            yield lambda: self._call("cuGraphLaunch", ready, self._stream)
        finally:
            self._call("cuStreamSynchronize", self._stream)
            self._call("cuGraphExecDestroy", ready)
            self._call("cuGraphDestroy", graph)

    def seconds(self, work: Callable[[], object]) -> float:
        """The GPU's own time for what `work` queues on the stream."""
        begin, end = self._event(), self._event()
        self._call("cuEventRecord", begin, self._stream)
        work()
        self._call("cuEventRecord", end, self._stream)
        self._call("cuEventSynchronize", end)
        taken = ctypes.c_float()
        self._call("cuEventElapsedTime", ctypes.byref(taken), begin, end)
        for event in (begin, end):
            self._call("cuEventDestroy_v2", event)
        return taken.value / 1000

    def _event(self) -> ctypes.c_void_p:
        event = ctypes.c_void_p()
        self._call("cuEventCreate", ctypes.byref(event), ctypes.c_uint(0))
        return event

    def _devices(self) -> list[ctypes.c_int]:
        count = ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        devices = [ctypes.c_int() for _ in range(count.value)]
        for ordinal, device in enumerate(devices):
            self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(ordinal))
        return devices

    def _name(self, device: ctypes.c_int) -> str:
        name = ctypes.create_string_buffer(NAME_BYTES)
        self._call("cuDeviceGetName", name, ctypes.c_int(NAME_BYTES), device)
        return name.value.decode()

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(number), self._device)
        return value.value

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            told = ctypes.c_char_p()
            self._library.cuGetErrorString(ctypes.c_int(code), ctypes.byref(told))
            raise CudaFailed(f"{name}: {(told.value or b'').decode() or f'error {code}'}")


def _host(array: Array) -> tuple[ctypes.c_void_p, ctypes.c_size_t]:
    return ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)


def driver_version() -> str:
    """The driver's version, as nvidia-smi shows it.

    Raises:
        NoGpu: the driver's management library is missing or does not answer.
    """
    text = ctypes.create_string_buffer(NAME_BYTES)
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        raise NoGpu("the NVIDIA driver's libnvidia-ml.so.1 is missing") from None
    if library.nvmlInit_v2() or library.nvmlSystemGetDriverVersion(text, NAME_BYTES):
        raise NoGpu("the NVIDIA driver's libnvidia-ml.so.1 does not answer")
    library.nvmlShutdown()
    return text.value.decode()
