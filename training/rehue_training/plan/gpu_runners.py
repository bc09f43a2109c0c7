"""Runs networks, a matrix product and a copy on a GPU; with TensorRT, and what others offer."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from rehue_training.plan.engine import Engine
from rehue_training.plan.identity import PLAN_FILE
from rehue_training.plan.options import PlanOptions
from rehue_training.plan.parity import Parity
from rehue_training.plan.plans import compare_plan, ensure_plan
from rehue_training.plan.served_model import Profile, ServedModel
from rehue_training.plan.tensorrt import TensorRT

Work = Callable[[], object]  # queues something on the GPU

SEED = 0  # of the numbers to compute on: zeros would be faster than photographs


@dataclass(frozen=True)
class LoadedNetwork:
    """A network on the GPU."""

    parity: Parity  # to its ONNX file
    open_batch: Callable[
        [int], AbstractContextManager[Work]
    ]  # one inference of so many photographs


class Runner(Protocol):
    """One way to run things on the GPU; all figures of a check come from one."""

    name: str
    gpu: str

    def load_network(
        self, model: ServedModel, options: PlanOptions
    ) -> AbstractContextManager[LoadedNetwork]:
        """Loads a model's network, after it was compared with its ONNX file."""
        ...

    def open_product(self, side: int, level: int | None) -> AbstractContextManager[Work]:
        """Prepares a product of two square FP16 matrices."""
        ...

    def open_copy(self, size: int) -> AbstractContextManager[Work]:
        """Prepares a copy of `size` bytes within the GPU's memory."""
        ...

    def measure_seconds(self, work: Work) -> float:
        """Returns the GPU's own time for some work."""
        ...


class TensorRTRunner:
    """Runs the plans themselves."""

    def __init__(self, tensorrt: TensorRT) -> None:
        self._tensorrt, self._cuda = tensorrt, tensorrt.cuda
        self.name = f"TensorRT {tensorrt.version}"
        self.gpu = f"{tensorrt.gpu.name}, driver {tensorrt.gpu.driver}"
        self.measure_seconds = self._cuda.measure_seconds

    @contextmanager
    def load_network(self, model: ServedModel, options: PlanOptions) -> Iterator[LoadedNetwork]:
        ensure_plan(model, self._tensorrt, options)
        plan = (model.version_folder / PLAN_FILE).read_bytes()
        parity = compare_plan(model, self._tensorrt, plan, options)
        with self._tensorrt.load_plan(plan) as engine:
            yield LoadedNetwork(
                parity, lambda batch: self._open_inference(engine, model.profiles, batch)
            )

    @contextmanager
    def _open_inference(
        self, engine: Engine, profiles: tuple[Profile, ...], batch: int
    ) -> Iterator[Work]:
        number = choose_profile(profiles, batch)
        profile = profiles[number]
        counts = make_counts((batch, *profile.shape))
        tensors = {profile.input_name: counts}
        with engine.prepare_run(tensors, profile=number) as (queue, _):
            queue()  # TensorRT allocates during the first run, which no graph may contain
            with self._cuda.capture_graph(queue) as launch:
                yield launch

    @contextmanager
    def open_product(self, side: int, level: int | None) -> Iterator[Work]:
        onnx = make_product_onnx(side)
        built = self._tensorrt.build_plan(onnx, [], precision="fp16", level=level)
        matrices = {name: make_matrix(side) for name in ("left", "right")}
        with (
            self._tensorrt.load_plan(built.plan) as engine,
            engine.prepare_run(matrices) as (queue, _),
        ):
            queue()
            with self._cuda.capture_graph(queue) as launch:
                yield launch

    @contextmanager
    def open_copy(self, size: int) -> Iterator[Work]:
        with self._cuda.allocate(size) as source, self._cuda.allocate(size) as target:
            yield lambda: self._cuda.copy(target, source, size)


def choose_profile(profiles: tuple[Profile, ...], batch: int) -> int:
    """Returns the number of the profile that Triton would use: tuned for the nearest size."""
    distances = [abs(profile.batches[1] - batch) for profile in profiles]
    return distances.index(min(distances))


def make_counts(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Makes random lightness counts."""
    return np.random.default_rng(SEED).integers(0, 256, shape, np.uint8)


def make_matrix(side: int) -> NDArray[np.float16]:
    """Makes a square FP16 matrix: standard normal over its side's root, to keep products small."""
    values = np.random.default_rng(SEED).standard_normal((side, side), np.float32)
    return np.asarray(values / np.sqrt(side), np.float16)


def make_product_onnx(side: int) -> bytes:
    """Makes an ONNX model of one product of two square FP16 matrices."""
    left, right, product = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT16, [side, side])
        for name in ("left", "right", "product")
    )
    node = helper.make_node("MatMul", ["left", "right"], ["product"])
    graph = helper.make_graph([node], "product", [left, right], [product])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
