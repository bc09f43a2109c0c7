"""The calls of the CUDA driver, by its own declarations; a GPU's memory is this process's.

The driver here takes what NVIDIA declares (in the package cuda-bindings): another name, number
or type of arguments fails as it would on a GPU.
"""

import ctypes
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cuda.bindings
import numpy as np
import pytest

from rehue_training.plan.cuda import Cuda, CudaFailed, Gpu, NoGpu

DECLARED = Path(cuda.bindings.__path__[0], "_internal", "driver.pxd").read_text()
# CUDA 13 declares the second one alone; drivers keep the first, of the same arguments.
OLDER = {"cuEventElapsedTime": "cuEventElapsedTime_v2"}
WORDS = ("CUdevice", "CUresult", "CUdevice_attribute", "CUstreamCaptureMode")
C_TYPES = {
    "int": ctypes.c_int,
    "unsigned int": ctypes.c_uint,
    "unsigned long long": ctypes.c_ulonglong,
    "size_t": ctypes.c_size_t,
    "CUdeviceptr": ctypes.c_uint64,
} | dict.fromkeys(WORDS, ctypes.c_int)
OUT_OF_MEMORY = 2


def list_argument_types(function: str) -> list[Any]:
    """The types of a function's arguments; what is not a number is a pointer."""
    name = OLDER.get(function, function)
    (declared,) = re.findall(rf"^cdef CUresult _{name}\((.*?)\)", DECLARED, re.MULTILINE)
    types = [parameter.strip().rpartition(" ")[0] for parameter in declared.split(",")]
    return [C_TYPES.get(type, ctypes.c_void_p) for type in types]


class Driver:
    """libcuda. What is queued is done when the stream is waited for, and not before."""

    def __init__(self, *names: str) -> None:
        self.names, self.failing = names, ""
        self.calls: list[str] = []
        self.wrong: list[Exception] = []  # what ctypes would only print
        self.queue: list[Callable[[], object]] = []
        self.captured: list[Callable[[], object]] | None = None
        self.objects: dict[int, Any] = {}  # buffers, graphs and events by their handles

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*given: Any) -> int:
            self.calls.append(name)
            if name == self.failing:
                return OUT_OF_MEMORY
            try:
                getattr(self, f"do_{name}")(*given)
            except Exception as error:  # noqa: BLE001 -- raised again when the test has ended
                self.wrong.append(error)
            return 0

        return ctypes.CFUNCTYPE(ctypes.c_int, *list_argument_types(name))(call)

    def new(self, place: int, value: Any, handle: int | None = None) -> None:
        handle = handle or len(self.objects) + 1000
        self.objects[handle] = value
        ctypes.c_uint64.from_address(place).value = handle

    def later(self, work: Callable[[], object]) -> None:
        (self.queue if self.captured is None else self.captured).append(work)

    def do_cuInit(self, flags: int) -> None:
        assert flags == 0

    def do_cuDeviceGetCount(self, count: int) -> None:
        ctypes.c_int.from_address(count).value = len(self.names)

    def do_cuDeviceGet(self, device: int, ordinal: int) -> None:
        ctypes.c_int.from_address(device).value = ordinal

    def do_cuDeviceGetName(self, name: int, size: int, device: int) -> None:
        ctypes.memmove(name, self.names[device].encode() + b"\0", len(self.names[device]) + 1)
        assert size > len(self.names[device])

    def do_cuDeviceGetAttribute(self, value: int, attribute: int, device: int) -> None:
        assert device == 0
        ctypes.c_int.from_address(value).value = {75: 9, 76: 0}[attribute]

    def do_cuDevicePrimaryCtxRetain(self, context: int, device: int) -> None:
        assert device == 0
        ctypes.c_uint64.from_address(context).value = 7

    def do_cuCtxSetCurrent(self, context: int) -> None:
        assert context == 7

    def do_cuStreamCreate(self, stream: int, flags: int) -> None:
        assert flags == 1
        ctypes.c_uint64.from_address(stream).value = 8

    def do_cuMemAlloc_v2(self, address: int, size: int) -> None:
        room = ctypes.create_string_buffer(size)
        self.new(address, room, ctypes.addressof(room))

    def do_cuMemFree_v2(self, address: int) -> None:
        del self.objects[address]

    def do_cuMemcpyHtoDAsync_v2(self, there: int, here: int, size: int, stream: int) -> None:
        assert stream == 8
        self.later(lambda: ctypes.memmove(there, here, size))

    do_cuMemcpyDtoDAsync_v2 = do_cuMemcpyHtoDAsync_v2  # noqa: N815 -- the driver's own name

    def do_cuMemcpyDtoH_v2(self, there: int, here: int, size: int) -> None:
        ctypes.memmove(there, here, size)

    def do_cuStreamSynchronize(self, stream: int) -> None:
        assert stream == 8
        assert self.captured is None
        for work in self.queue:
            work()
        self.queue.clear()

    def do_cuStreamBeginCapture_v2(self, stream: int, mode: int) -> None:
        assert (stream, mode) == (8, 2)
        self.captured = []

    def do_cuStreamEndCapture(self, stream: int, graph: int) -> None:
        assert stream == 8
        self.new(graph, self.captured)
        self.captured = None

    def do_cuGraphInstantiateWithFlags(self, ready: int, graph: int, flags: int) -> None:
        assert flags == 0
        self.new(ready, self.objects[graph])

    def do_cuGraphLaunch(self, ready: int, stream: int) -> None:
        assert stream == 8
        self.queue.extend(self.objects[ready])

    def do_cuGraphExecDestroy(self, ready: int) -> None:
        del self.objects[ready]

    do_cuGraphDestroy = do_cuEventDestroy_v2 = do_cuGraphExecDestroy  # noqa: N815

    def do_cuEventCreate(self, event: int, flags: int) -> None:
        assert flags == 0
        self.new(event, None)

    def do_cuEventRecord(self, event: int, stream: int) -> None:
        assert stream == 8
        self.objects[event] = len(self.queue)

    def do_cuEventSynchronize(self, event: int) -> None:
        assert self.objects[event] is not None
        self.do_cuStreamSynchronize(8)

    def do_cuEventElapsedTime(self, taken: int, begin: int, end: int) -> None:
        done = self.objects[end] - self.objects[begin]
        ctypes.c_float.from_address(taken).value = 250.0 * done

    def do_cuGetErrorString(self, error: int, message: int) -> None:
        assert error == OUT_OF_MEMORY
        self.reason = ctypes.create_string_buffer(b"out of memory")
        ctypes.c_uint64.from_address(message).value = ctypes.addressof(self.reason)


class Management:
    """libnvidia-ml, with the driver's version."""

    nvmlInit_v2 = nvmlShutdown = staticmethod(lambda: 0)  # noqa: N815

    @staticmethod
    def nvmlSystemGetDriverVersion(text: Any, size: int) -> int:
        text.value = b"580.82.07"
        assert size == len(text)
        return 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    found = Driver("NVIDIA H100 80GB HBM3")
    libraries = {"libcuda.so.1": found, "libnvidia-ml.so.1": Management()}
    monkeypatch.setattr(ctypes, "CDLL", libraries.__getitem__)
    yield found
    assert found.wrong == []


def test_the_gpu_is_named(driver: Driver) -> None:
    assert Cuda().gpu == Gpu("NVIDIA H100 80GB HBM3", "9.0", "580.82.07")


def test_what_is_uploaded_is_there_before_the_work_and_fetched_behind_it(driver: Driver) -> None:
    cuda, numbers = Cuda(), np.arange(70_000, dtype=np.uint8)
    found = np.zeros_like(numbers)
    with cuda.allocate(numbers.nbytes) as here, cuda.allocate(numbers.nbytes) as there:
        cuda.upload(here, numbers)
        assert not driver.queue  # the array may go
        cuda.copy(there, here, numbers.nbytes)
        cuda.download(found, there)
    np.testing.assert_array_equal(found, numbers)
    assert not driver.objects
    # It would be through the default stream, for which this one does not wait.
    assert "cuMemcpyHtoD_v2" not in driver.calls


def test_a_graph_holds_the_work_and_is_given_back(driver: Driver) -> None:
    cuda, numbers = Cuda(), np.arange(16, dtype=np.uint8)
    with cuda.allocate(16) as here, cuda.allocate(16) as there:
        cuda.upload(here, numbers)
        with cuda.capture_graph(lambda: cuda.copy(there, here, 16)) as launch:
            found = np.zeros_like(numbers)
            cuda.download(found, there)
            assert not found.any()  # recorded, not done
            assert cuda.measure_seconds(lambda: [launch(), launch()]) == 0.5
            cuda.download(found, there)
        np.testing.assert_array_equal(found, numbers)
    assert not driver.objects


def test_work_that_fails_in_a_capture_says_so_itself(driver: Driver) -> None:
    cuda = Cuda()
    with pytest.raises(ZeroDivisionError), cuda.capture_graph(lambda: 1 / 0):
        pass
    assert driver.captured is None


def test_a_call_that_fails_is_named(driver: Driver) -> None:
    cuda, driver.failing = Cuda(), "cuMemAlloc_v2"
    with pytest.raises(CudaFailed, match=r"^cuMemAlloc_v2: out of memory$"), cuda.allocate(1):
        pass


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("NVIDIA A10", "NVIDIA H100 PCIe"), "there are NVIDIA A10 and NVIDIA H100 PCIe"),
        ((), "there are none"),
    ],
)
def test_one_kind_of_gpu_is_needed(driver: Driver, names: tuple[str, ...], message: str) -> None:
    driver.names = names
    with pytest.raises(NoGpu, match=message):
        Cuda()
    driver.names = ("NVIDIA A10", "NVIDIA A10")
    assert Cuda().gpu.name == "NVIDIA A10"


def test_a_driver_that_does_not_start_is_reported(driver: Driver) -> None:
    driver.failing = "cuInit"
    with pytest.raises(NoGpu, match="shows no GPU \\(cuInit: out of memory\\)"):
        Cuda()
