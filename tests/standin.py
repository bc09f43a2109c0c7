"""A stand-in for TensorRT's builder and the GPU that it needs.

Its "plan" is the ONNX file to build from, with the number of profiles, run by ONNX Runtime. Its GPU
memory is this process's. The classes and methods are those of TensorRT's Python API that
`rehue_training.plan.tensorrt` and `engine` call, with TensorRT's own argument names.
"""

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from rehue_training.plan.cuda import Gpu
from rehue_training.plan.tensorrt import TensorRT

NUMPY = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}
H100 = Gpu("NVIDIA H100 80GB HBM3", "9.0", "580.82.07")


class HostCuda:
    """`rehue_training.plan.cuda.Cuda` on this process's memory."""

    stream = 1

    def __init__(self, gpu: Gpu = H100) -> None:
        self.gpu = gpu
        self.in_use = 0

    @contextmanager
    def allocate(self, size: int) -> Iterator[int]:
        room = ctypes.create_string_buffer(size)
        self.in_use += 1
        yield ctypes.addressof(room)
        self.in_use -= 1

    def upload(self, address: int, array: NDArray[Any]) -> None:
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def copy(self, target: int, source: int, size: int) -> None:
        ctypes.memmove(target, source, size)

    @contextmanager
    def capture_graph(self, work: Callable[[], None]) -> Iterator[Callable[[], None]]:
        self.in_use += 1
        yield work
        self.in_use -= 1

    def measure_seconds(self, work: Callable[[], None]) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    def download(self, array: NDArray[Any], address: int) -> None:
        ctypes.memmove(array.ctypes.data, address, array.nbytes)


@dataclass
class Profile:
    shapes: dict[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        assert all(low <= best <= high for low, best, high in zip(min, opt, max, strict=True))
        self.shapes[input] = (min, opt, max)


class TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytearray:
        return bytearray(self.content + b"timed;")


@dataclass
class Config:
    """What the builder was configured with; `TensorRTModule.builds` lists it."""

    version: str
    null: str
    profiles: list[Profile] = field(default_factory=list)
    flags: set[str] = field(default_factory=lambda: {"TF32"})
    hardware_compatibility_level: Any = None
    builder_optimization_level: int = 3
    tactic_sources: int | None = None
    cache: TimingCache | None = None

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def set_flag(self, flag: IntEnum) -> None:
        self.flags.add(flag.name)

    def clear_flag(self, flag: IntEnum) -> None:
        self.flags.discard(flag.name)

    def set_tactic_sources(self, tactic_sources: int) -> bool:
        self.tactic_sources = tactic_sources
        return True

    def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache | None:
        broken = self.null == "timing cache" and serialized_timing_cache
        return None if broken else TimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        fits = not cache.content or cache.content.startswith(b"timed;")
        self.cache = cache if fits else self.cache
        return fits or ignore_mismatch


@dataclass
class Network:
    flags: int
    onnx: bytes = b""


class Parser:
    def __init__(self, network: Network, logger: object) -> None:
        self.network = network
        self.errors: list[str] = []

    def parse(self, model: bytes) -> bool:
        try:
            onnx.checker.check_model(onnx.load_model_from_string(model))
        except Exception as error:  # noqa: BLE001 -- TensorRT's parser raises nothing
            self.errors.append(f"{type(error).__name__}")
        self.network.onnx = model
        return not self.errors

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, index: int) -> str:
        return self.errors[index]


class Context:
    def __init__(self, session: onnxruntime.InferenceSession, profiles: int) -> None:
        self.session, self.profiles = session, profiles
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        return stream_handle == HostCuda.stream and profile_index < self.profiles

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return shape[1:] == tuple(self.session.get_inputs()[0].shape[1:])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        batch = next(iter(self.shapes.values()))[0]
        return (batch, *self.session.get_outputs()[0].shape[1:])

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        types = {input.name: NUMPY[input.type] for input in self.session.get_inputs()}
        feed = {name: np.empty(shape, types[name]) for name, shape in self.shapes.items()}
        for name, array in feed.items():
            ctypes.memmove(array.ctypes.data, self.addresses[name], array.nbytes)
        for output, made in zip(
            self.session.get_outputs(), self.session.run(None, feed), strict=True
        ):
            ctypes.memmove(self.addresses[output.name], made.ctypes.data, made.nbytes)
        return True


class Engine:
    def __init__(self, plan: bytes, null: str) -> None:
        self.null = null
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(plan, options)
        self.tensors = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.num_io_tensors = len(self.tensors)
        profiles = self.session.get_modelmeta().custom_metadata_map["profiles"]
        self.num_optimization_profiles = int(profiles)

    def create_execution_context(self) -> Context | None:
        full = self.null == "context"
        return None if full else Context(self.session, self.num_optimization_profiles)

    def get_tensor_name(self, index: int) -> str:
        return self.tensors[index].name  # type: ignore[no-any-return]

    def get_tensor_mode(self, name: str) -> IntEnum:
        inputs = [input.name for input in self.session.get_inputs()]
        return TensorRTModule.TensorIOMode["INPUT" if name in inputs else "OUTPUT"]

    def get_tensor_dtype(self, name: str) -> str:
        return {tensor.name: tensor.type for tensor in self.tensors}[name]  # type: ignore[no-any-return]


class TensorRTModule:
    """The package `tensorrt`: its names, and `builds`, the builds so far."""

    BuilderFlag = IntEnum("BuilderFlag", ["FP16", "TF32"])
    NetworkDefinitionCreationFlag = IntEnum(
        "NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
    )
    HardwareCompatibilityLevel = IntEnum("HardwareCompatibilityLevel", ["NONE", "AMPERE_PLUS"])
    TacticSource = IntEnum(
        "TacticSource",
        ["CUBLAS", "CUBLAS_LT", "CUDNN", "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"],
        start=0,
    )
    TensorIOMode = IntEnum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
    OnnxParser = Parser

    class Logger:
        WARNING = 2

        def __init__(self, min_severity: int) -> None:
            assert min_severity == self.WARNING

    def __init__(
        self,
        version: str = "11.1.0.106",
        *,
        change: Callable[[bytes], bytes | None] = lambda plan: plan,
        null: str = "",
    ) -> None:
        """`change` is applied to every plan that is built; None from it: no plan.

        `null` names what the library has none of: Builder, Runtime, context, timing cache.
        """
        self.__version__ = version
        self.change, self.null = change, null
        self.builds: list[tuple[Network, Config]] = []

    def Builder(self, logger: object) -> "TensorRTModule":
        return self._object("Builder")

    def create_network(self, flags: int) -> Network:
        return Network(flags)

    def create_builder_config(self) -> Config:
        return Config(self.__version__, self.null)

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> bytearray | None:
        self.builds.append((network, config))
        plan = self.change(network.onnx)
        profiles = onnx.StringStringEntryProto(
            key="profiles", value=str(max(1, len(config.profiles)))
        )
        # Messages behind each other are one message.
        behind = onnx.ModelProto(metadata_props=[profiles]).SerializeToString()
        return None if plan is None else bytearray(plan + behind)

    def Runtime(self, logger: object) -> "TensorRTModule":
        return self._object("Runtime")

    def _object(self, name: str) -> "TensorRTModule":
        if self.null == name:  # in pybind11's own words
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return self

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None:
        return Engine(serialized_engine, self.null)

    @staticmethod
    def nptype(dtype: str) -> type[np.generic]:
        return NUMPY[dtype]  # type: ignore[return-value]


def create_standin(gpu: Gpu = H100, **options: Any) -> TensorRT:
    """Returns the stand-in, wrapped in this project's own code for TensorRT."""
    module = TensorRTModule(**options)
    return TensorRT(module, module.__version__, HostCuda(gpu))  # type: ignore[arg-type]
