"""Builds plans from ONNX files with TensorRT, and loads them.

With `engine`, the one place that calls TensorRT's Python API: 10 and 11, and what differs in 8.6.
8.6.0 has built with it and run on an H200; the classes and arguments used here were also compared
with the bindings of 10.0, 10.16, 11.1 and 11.4.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rehue_training.plan.cuda import Cuda, Gpu
from rehue_training.plan.engine import Engine
from rehue_training.plan.identity import (
    AMPERE_PLUS,
    QUANTIZED,
    SAME_CAPABILITY,
    THIS_GPU,
    Precision,
)
from rehue_training.plan.served_model import Profile
from rehue_training.plan.tensorrt_package import BuildFailed, load_tensorrt

FP8_CAPABILITY = (8, 9)  # Ada

COMPATIBILITY_LEVELS = {
    THIS_GPU: "NONE",
    SAME_CAPABILITY: "SAME_COMPUTE_CAPABILITY",  # 10.0.1 lacks it
    AMPERE_PLUS: "AMPERE_PLUS",
}


@dataclass(frozen=True)
class BuiltPlan:
    """A plan, and the kernels' times that TensorRT measured for it, for the next build."""

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

    def build_plan(
        self,
        onnx: bytes,
        profiles: Sequence[Profile],
        *,
        precision: Precision,
        compatibility: str = THIS_GPU,
        level: int | None = None,
        timing_cache: bytes = b"",
    ) -> BuiltPlan:
        """Builds a plan, which takes minutes, on the GPU that it will run on.

        Args:
            level: of the builder's optimisation, 0 (quick to build) to 5; None: TensorRT's own.

        Raises:
            BuildFailed: TensorRT does not take the ONNX file, or finds no way to run it.
        """
        builder = self._create(self.module.Builder)
        network = builder.create_network(self._get_network_flags())
        self._parse_onnx(network, onnx)
        config = builder.create_builder_config()
        self._set_precision(config, precision)
        if level is not None:
            config.builder_optimization_level = level
        if self._major < 10:
            self._disable_external_kernels(config)
        if compatibility != THIS_GPU:
            config.hardware_compatibility_level = self._get_compatibility_level(compatibility)
        for profile in profiles:
            entry = builder.create_optimization_profile()
            entry.set_shape(profile.input_name, *profile.shapes)
            config.add_optimization_profile(entry)
        cache = self._attach_timing_cache(config, timing_cache)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise BuildFailed("TensorRT could not build the plan; its log says why")
        return BuiltPlan(bytes(plan), bytes(cache.serialize()))

    @contextmanager
    def load_plan(self, plan: bytes) -> Iterator[Engine]:
        """Loads a plan onto the GPU.

        Raises:
            BuildFailed: TensorRT does not take it.
        """
        runtime = self._create(self.module.Runtime)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BuildFailed("TensorRT could not load the plan; its log says why")
        yield Engine(self.module, self.cuda, engine)

    def refuse_unsupported(self, precision: Precision) -> None:
        """Refuses before the work what TensorRT would refuse after minutes, or build wrongly.

        Raises:
            BuildFailed: TensorRT takes no networks of this precision here.
        """
        # 8.6's parser takes the FP16 scales of quantized tensors for FP32.
        if precision in QUANTIZED and self._major < 10:
            raise BuildFailed(
                f"TensorRT {self.version} does not support {precision.upper()} networks; "
                "10 or newer does"
            )
        capability = tuple(map(int, self.gpu.compute_capability.split(".")))
        if precision == "fp8" and capability < FP8_CAPABILITY:
            raise BuildFailed(
                f"FP8 needs compute capability 8.9 or newer; {self.gpu.name} "
                f"has {self.gpu.compute_capability}"
            )

    @property
    def _major(self) -> int:
        return int(self.version.partition(".")[0])

    def _create(self, kind: Any, *arguments: Any) -> Any:
        """Creates one of TensorRT's own objects.

        Raises:
            BuildFailed: the library creates none, as with a driver that is too old for its CUDA;
                the bindings raise a TypeError for that.
        """
        try:
            return kind(*arguments, self._logger)
        except TypeError as error:
            raise BuildFailed(
                f"TensorRT {self.version} does not start on {self.gpu.name} with driver "
                f"{self.gpu.driver}; its log says why ({error})"
            ) from None

    def _get_network_flags(self) -> int:
        flags = self.module.NetworkDefinitionCreationFlag
        # 8.6 has no strong typing; 11 always has it and ignores the flag.
        return 1 << int(flags.EXPLICIT_BATCH if self._major < 10 else flags.STRONGLY_TYPED)

    def _parse_onnx(self, network: Any, onnx: bytes) -> None:
        parser = self._create(self.module.OnnxParser, network)
        if not parser.parse(onnx):
            errors = [str(parser.get_error(index)) for index in range(parser.num_errors)]
            raise BuildFailed("TensorRT does not take the ONNX file: " + "; ".join(errors))

    def _set_precision(self, config: Any, precision: Precision) -> None:
        """Sets what the ONNX file cannot: no TF32 for FP32; that 8.6 may use FP16."""
        if precision == "fp32":
            config.clear_flag(self.module.BuilderFlag.TF32)
        elif self._major < 10:
            config.set_flag(self.module.BuilderFlag.FP16)

    def _disable_external_kernels(self, config: Any) -> None:
        """Does without cuBLAS and cuDNN, as 10 and 11 do by default: 8.6 would load them."""
        sources = self.module.TacticSource
        config.set_tactic_sources(
            1 << int(sources.EDGE_MASK_CONVOLUTIONS) | 1 << int(sources.JIT_CONVOLUTIONS)
        )

    def _get_compatibility_level(self, compatibility: str) -> Any:
        name = COMPATIBILITY_LEVELS[compatibility]
        level = getattr(self.module.HardwareCompatibilityLevel, name, None)
        if level is None:
            raise BuildFailed(f"TensorRT {self.version} has no compatibility level {compatibility}")
        return level

    def _attach_timing_cache(self, config: Any, content: bytes) -> Any:
        """Attaches a timing cache; an empty one if the content is another TensorRT's or GPU's."""
        cache = config.create_timing_cache(content)
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, ignore_mismatch=False)
        return cache


def load_on_first_gpu() -> TensorRT:
    """Returns TensorRT on the first GPU of this machine.

    Raises:
        NoTensorRT, NoGpu: what is missing.
        BuildFailed: the Python bindings are of another TensorRT than the library.
    """
    cuda = Cuda()
    return TensorRT(*load_tensorrt(), cuda)
