"""Drives this machine's GPU through its driver: memory, a stream, CUDA graphs, times.

The driver's own libraries (libcuda, libnvidia-ml) come with every NVIDIA driver and keep their ABI,
so neither PyTorch nor a CUDA toolkit is needed on the node that builds plans.

Why not NVIDIA's cuda-bindings and nvidia-ml-py: a release of cuda-bindings is for one major version
of CUDA (13.4 asks for cuEventElapsedTime_v2, which CUDA 12's drivers lack), and these calls run
under both. Importing it takes 53 ms (270 ms the first time) and 44 MB of disk; ctypes takes 2 ms.
The tests compare every call here with cuda-bindings' declarations.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

# CUdevice_attribute: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
MAJOR, MINOR = 75, 76
NAME_BYTES = 256
Pointer = ctypes.c_uint64  # CUdeviceptr


class NoGpu(RuntimeError):
    """There is no NVIDIA GPU here that a plan could be built for; the message says why."""


class CudaFailed(RuntimeError):
    """A call to the driver failed; the message holds the call and the driver's reason."""


@dataclass(frozen=True)
class Gpu:
    """What plans are bound to."""

    name: str
    compute_capability: str  # such as "9.0"
    driver: str  # such as "580.82.07"


class Cuda:
    """The first visible GPU, with one stream. Belongs to the thread that creates it."""

    def __init__(self) -> None:
        """Retains the GPU's primary context, as TensorRT does.

        Raises:
            NoGpu: no driver, no GPU, or GPUs of several kinds: Triton would load the first GPU's
                plan on all of them.
        """
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError:
            raise NoGpu("there is no NVIDIA driver here (libcuda.so.1 is missing)") from None
        try:
            self._call("cuInit", ctypes.c_uint(0))
            devices = self._list_devices()
        except CudaFailed as error:
            raise NoGpu(f"the NVIDIA driver shows no GPU ({error})") from None
        names = sorted({self._get_name(device) for device in devices})
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
        capability = f"{self._get_attribute(MAJOR)}.{self._get_attribute(MINOR)}"
        return Gpu(self._get_name(self._device), capability, read_driver_version())

    @contextmanager
    def allocate(self, size: int) -> Iterator[int]:
        """Allocates memory on the GPU.

        Args:
            size: in bytes.

        Yields:
            Its address.

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
        """Copies a C-contiguous array to the GPU, before what is queued on the stream next.

        Not with cuMemcpyHtoD, which may return before the last bytes are there: it uses the default
        stream, and this stream does not wait for that.
        """
        self._call("cuMemcpyHtoDAsync_v2", Pointer(address), *_describe_array(array), self._stream)
        self._call("cuStreamSynchronize", self._stream)

    def download(self, array: Array, address: int) -> None:
        """Fills a C-contiguous array from the GPU, after what is queued on the stream."""
        host, size = _describe_array(array)
        self._call("cuStreamSynchronize", self._stream)
        self._call("cuMemcpyDtoH_v2", host, Pointer(address), size)

    def copy(self, target: int, source: int, size: int) -> None:
        """Queues a copy of `size` bytes within the GPU's memory."""
        length = ctypes.c_size_t(size)
        self._call("cuMemcpyDtoDAsync_v2", Pointer(target), Pointer(source), length, self._stream)

    @contextmanager
    def capture_graph(self, work: Callable[[], object]) -> Iterator[Callable[[], None]]:
        """Captures what `work` queues on the stream as a CUDA graph.

        Yields:
            A function that queues all of it.
        """
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        # 2: CU_STREAM_CAPTURE_MODE_RELAXED.
        self._call("cuStreamBeginCapture_v2", self._stream, ctypes.c_int(2))
        try:
            work()
        except BaseException:
            # End the capture; that it failed too says nothing new.
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

    def measure_seconds(self, work: Callable[[], object]) -> float:
        """Returns the GPU's own time for what `work` queues on the stream."""
        begin, end = self._create_event(), self._create_event()
        self._call("cuEventRecord", begin, self._stream)
        work()
        self._call("cuEventRecord", end, self._stream)
        self._call("cuEventSynchronize", end)
        elapsed = ctypes.c_float()  # milliseconds
        self._call("cuEventElapsedTime", ctypes.byref(elapsed), begin, end)
        for event in (begin, end):
            self._call("cuEventDestroy_v2", event)
        return elapsed.value / 1000

    def _create_event(self) -> ctypes.c_void_p:
        event = ctypes.c_void_p()
        self._call("cuEventCreate", ctypes.byref(event), ctypes.c_uint(0))
        return event

    def _list_devices(self) -> list[ctypes.c_int]:
        count = ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        devices = [ctypes.c_int() for _ in range(count.value)]
        for ordinal, device in enumerate(devices):
            self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(ordinal))
        return devices

    def _get_name(self, device: ctypes.c_int) -> str:
        name = ctypes.create_string_buffer(NAME_BYTES)
        self._call("cuDeviceGetName", name, ctypes.c_int(NAME_BYTES), device)
        return name.value.decode()

    def _get_attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(number), self._device)
        return value.value

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            reason = ctypes.c_char_p()
            self._library.cuGetErrorString(ctypes.c_int(code), ctypes.byref(reason))
            raise CudaFailed(f"{name}: {(reason.value or b'').decode() or f'error {code}'}")


def _describe_array(array: Array) -> tuple[ctypes.c_void_p, ctypes.c_size_t]:
    return ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)


def read_driver_version() -> str:
    """Reads the driver's version, as nvidia-smi shows it.

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
