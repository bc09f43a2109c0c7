"""TensorRT: a plan from an ONNX file, and answers from a plan.

The one place that calls TensorRT's Python API: 10 and 11, and what is left of 8.6
that differs. 8.6.0 has built with it and run on an H200; the classes and arguments used
here were compared with the bindings of 10.0, 10.16, 11.1 and 11.4 too.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehue_training.plan.cuda import Cuda, Gpu
from rehue_training.plan.identity import AMPERE_PLUS, SAME_CAPABILITY, THIS_GPU
from rehue_training.plan.precision import QUANTIZED, Precision
from rehue_training.plan.tensorrt_package import BuildFailed, load_tensorrt

Tensors = Mapping[str, NDArray[Any]]

FP8_FROM = (8, 9)  # compute capability: Ada

LEVELS = {
    THIS_GPU: "NONE",
    SAME_CAPABILITY: "SAME_COMPUTE_CAPABILITY",  # from 10.x on
    AMPERE_PLUS: "AMPERE_PLUS",
}


@dataclass(frozen=True)
class Profile:
    """Shapes of the one input that TensorRT tunes for: batch of each, then the rest."""

    name: str
    shape: tuple[int, ...]  # without the batch
    batches: tuple[int, int, int]  # least, the one to be quickest at, greatest

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [(batch, *self.shape) for batch in self.batches]

    def __str__(self) -> str:
        return f"{self.name} " + "/".join("x".join(map(str, one)) for one in self.shapes)


@dataclass(frozen=True)
class Built:
    """A plan, and what TensorRT timed on the way, for the next build."""

    plan: bytes
    timing_cache: bytes


class TensorRT:
    """TensorRT on this machine's GPU."""

    def __init__(self, module: Any, version: str, cuda: Cuda) -> None:
        """Keep the package and the GPU.

        Args:
            module: the package `tensorrt`.
            version: of the library libnvinfer, which builds.
        """
        self.module, self.version, self.cuda = module, version, cuda
        self._logger = module.Logger(module.Logger.WARNING)

    @property
    def gpu(self) -> Gpu:
        return self.cuda.gpu

    def build(
        self,
        onnx: bytes,
        profiles: Sequence[Profile],
        *,
        precision: Precision,
        compatibility: str = THIS_GPU,
        level: int | None = None,
        timing_cache: bytes = b"",
    ) -> Built:
        """Builds a plan; minutes, on the GPU that it will run on.

        Args:
            level: of the builder's optimisation, 0 (quick to build) to 5; None: TensorRT's own.

        Raises:
            BuildFailed: TensorRT does not take the ONNX, or finds no way to run it.
        """
        builder = self._made(self.module.Builder)
        network = builder.create_network(self._network_flags())
        self._parse(network, onnx)
        config = builder.create_builder_config()
        self._set_precision(config, precision)
        if level is not None:
            config.builder_optimization_level = level
        if self._major < 10:
            self._own_tactics(config)
        if compatibility != THIS_GPU:
            config.hardware_compatibility_level = self._level(compatibility)
        for one in profiles:
            profile = builder.create_optimization_profile()
            profile.set_shape(one.name, *one.shapes)
            config.add_optimization_profile(profile)
        cache = self._timing_cache(config, timing_cache)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise BuildFailed("TensorRT could not build the plan; its log says why")
        return Built(bytes(plan), bytes(cache.serialize()))

    @contextmanager
    def load(self, plan: bytes) -> Iterator["Engine"]:
        """The plan on the GPU.

        Raises:
            BuildFailed: TensorRT does not take it.
        """
        runtime = self._made(self.module.Runtime)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BuildFailed("TensorRT could not load the plan; its log says why")
        yield Engine(self.module, self.cuda, engine)

    @property
    def _major(self) -> int:
        return int(self.version.partition(".")[0])

    def _made(self, kind: Any, *arguments: Any) -> Any:
        """One of TensorRT's own objects.

        Raises:
            BuildFailed: the library gives none, as under a driver that is too old for its
                CUDA; the bindings make a TypeError of that.
        """
        try:
            return kind(*arguments, self._logger)
        except TypeError as error:
            raise BuildFailed(
                f"TensorRT {self.version} does not start on {self.gpu.name} with driver "
                f"{self.gpu.driver}; its log says why ({error})"
            ) from None

    def _network_flags(self) -> int:
        flags = self.module.NetworkDefinitionCreationFlag
        # 8.6 has no strong typing; 11 always has it and ignores the flag.
        return 1 << int(flags.EXPLICIT_BATCH if self._major < 10 else flags.STRONGLY_TYPED)

    def _parse(self, network: Any, onnx: bytes) -> None:
        parser = self._made(self.module.OnnxParser, network)
        if not parser.parse(onnx):
            errors = [str(parser.get_error(index)) for index in range(parser.num_errors)]
            raise BuildFailed("TensorRT does not take the ONNX file: " + "; ".join(errors))

    def _set_precision(self, config: Any, precision: Precision) -> None:
        """What the ONNX cannot say: whether FP32 may be TF32, and 8.6's leave for less."""
        if precision == "fp32":
            config.clear_flag(self.module.BuilderFlag.TF32)
        elif self._major < 10:
            config.set_flag(self.module.BuilderFlag.FP16)

    def _own_tactics(self, config: Any) -> None:
        """No cuBLAS and no cuDNN, as is 10's and 11's default: 8.6 would look for them."""
        sources = self.module.TacticSource
        config.set_tactic_sources(
            1 << int(sources.EDGE_MASK_CONVOLUTIONS) | 1 << int(sources.JIT_CONVOLUTIONS)
        )

    def accept(self, precision: Precision) -> None:
        """Says before the work what TensorRT would say after minutes, or not at all.

        Raises:
            BuildFailed: it takes no networks of this precision here.
        """
        # 8.6's parser takes the FP16 scales of quantized tensors for FP32.
        if precision in QUANTIZED and self._major < 10:
            raise BuildFailed(
                f"TensorRT {self.version} takes no {precision.upper()} networks: 10 or newer does"
            )
        capability = tuple(map(int, self.gpu.compute_capability.split(".")))
        if precision == "fp8" and capability < FP8_FROM:
            raise BuildFailed(
                f"FP8 needs compute capability 8.9 or newer; {self.gpu.name} "
                f"has {self.gpu.compute_capability}"
            )

    def _level(self, compatibility: str) -> Any:
        level = getattr(self.module.HardwareCompatibilityLevel, LEVELS[compatibility], None)
        if level is None:
            raise BuildFailed(f"TensorRT {self.version} has no compatibility level {compatibility}")
        return level

    def _timing_cache(self, config: Any, kept: bytes) -> Any:
        """The cache in use; an empty one where the kept one is of another TensorRT or GPU."""
        cache = config.create_timing_cache(kept)
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, ignore_mismatch=False)
        return cache


class Engine:
    """A plan that lies on the GPU."""

    def __init__(self, module: Any, cuda: Cuda, engine: Any) -> None:
        self._module, self._cuda, self._engine = module, cuda, engine
        self._context = engine.create_execution_context()
        if self._context is None:
            raise BuildFailed("TensorRT has no room to run the plan in; its log says why")
        self.inputs, self.outputs = self._names("INPUT"), self._names("OUTPUT")

    @property
    def profiles(self) -> int:
        return int(self._engine.num_optimization_profiles)

    @property
    def types(self) -> dict[str, np.dtype[Any]]:
        """Of the inputs and outputs, by name."""
        names = [*self.inputs, *self.outputs]
        kinds = (self._module.nptype(self._engine.get_tensor_dtype(name)) for name in names)
        return dict(zip(names, map(np.dtype, kinds), strict=True))

    def run(self, tensors: Tensors, *, profile: int = 0) -> dict[str, NDArray[Any]]:
        """The outputs for these inputs, by name."""
        with self.ready(tensors, profile=profile) as (work, answers):
            work()
            return answers()

    @contextmanager
    def ready(
        self, tensors: Tensors, *, profile: int = 0
    ) -> Iterator[tuple[Callable[[], None], Callable[[], dict[str, NDArray[Any]]]]]:
        """Inputs on the GPU and room for the outputs there.

        Yields:
            What queues one inference on the stream, and what waits for it and
            fetches the outputs.

        Raises:
            BuildFailed: the plan does not take these shapes.
        """
        self._set_profile(profile)
        with ExitStack() as stack:
            for name, array in tensors.items():
                if not self._context.set_input_shape(name, tuple(array.shape)):
                    raise BuildFailed(f"the plan does not take {name} of shape {array.shape}")
                self._cuda.upload(self._room(stack, name, array), np.ascontiguousarray(array))
            results = {name: self._empty(name) for name in self.outputs}
            places = {name: self._room(stack, name, array) for name, array in results.items()}

            def answers() -> dict[str, NDArray[Any]]:
                for name, array in results.items():
                    self._cuda.download(array, places[name])
                return results

            yield self._queue, answers

    def _queue(self) -> None:
        if not self._context.execute_async_v3(self._cuda.stream):
            raise BuildFailed("TensorRT could not run the plan; its log says why")

    def _set_profile(self, number: int) -> None:
        if not self._context.set_optimization_profile_async(number, self._cuda.stream):
            raise BuildFailed(f"the plan has no optimisation profile {number}")

    def _room(self, stack: ExitStack, name: str, array: NDArray[Any]) -> int:
        address = stack.enter_context(self._cuda.memory(array.nbytes))
        self._context.set_tensor_address(name, address)
        return address

    def _empty(self, name: str) -> NDArray[Any]:
        return np.empty(tuple(self._context.get_tensor_shape(name)), self.types[name])

    def _names(self, mode: str) -> list[str]:
        wanted = getattr(self._module.TensorIOMode, mode)
        names = map(self._engine.get_tensor_name, range(self._engine.num_io_tensors))
        return [name for name in names if self._engine.get_tensor_mode(name) == wanted]


def load_on_first_gpu() -> TensorRT:
    """Returns TensorRT on the first GPU of this machine.

    Raises:
        NoTensorRT, NoGpu: what is missing.
        BuildFailed: the Python bindings are of another TensorRT than the library.
    """
    cuda = Cuda()
    return TensorRT(*load_tensorrt(), cuda)
