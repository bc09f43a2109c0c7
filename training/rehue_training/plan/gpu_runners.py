"""What runs the networks and the ceiling's work on a GPU: TensorRT, or PyTorch in its place."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from rehue_core import spec
from rehue_training.plan import parity, plans
from rehue_training.plan.identity import PLAN, PlanRefused
from rehue_training.plan.parity import Parity
from rehue_training.plan.plans import CONFIG, ONNX, Options
from rehue_training.plan.tensorrt import Engine, Profile, TensorRT
from rehue_training.plan.tensorrt_package import NoTensorRT

Work = Callable[[], object]  # queues something on the GPU

SEED = 0  # of what is computed on: noughts would be quicker than photographs


@dataclass(frozen=True)
class Loaded:
    """A network on the GPU."""

    parity: Parity  # to its ONNX file
    at: Callable[[int], AbstractContextManager[Work]]  # one inference of so many photographs


class Runner(Protocol):
    """One way to run things on the GPU; all figures of a check come from one."""

    name: str
    gpu: str

    def network(self, model: Path, options: Options) -> AbstractContextManager[Loaded]: ...

    def product(self, side: int, level: int | None) -> AbstractContextManager[Work]:
        """A product of two square FP16 matrices."""
        ...

    def copy(self, size: int) -> AbstractContextManager[Work]:
        """A copy of so many bytes within the GPU's memory."""
        ...

    def seconds(self, work: Work) -> float:
        """The GPU's own time for some work."""
        ...


class TensorRTRunner:
    """The plans themselves."""

    def __init__(self, tensorrt: TensorRT) -> None:
        self._tensorrt, self._cuda = tensorrt, tensorrt.cuda
        self.name = f"TensorRT {tensorrt.version}"
        self.gpu = f"{tensorrt.gpu.name}, driver {tensorrt.gpu.driver}"
        self.seconds = self._cuda.seconds

    @contextmanager
    def network(self, model: Path, options: Options) -> Iterator[Loaded]:
        plans.ensure(model, self._tensorrt, options)
        content = (model / "1" / PLAN).read_bytes()
        found = plans.compare(model, self._tensorrt, content, options)
        profiles = plans.profiles(model)
        with self._tensorrt.load(content) as engine:
            yield Loaded(found, lambda batch: self._inference(engine, profiles, batch))

    @contextmanager
    def _inference(self, engine: Engine, profiles: list[Profile], batch: int) -> Iterator[Work]:
        # As Triton chooses: the profile whose best batch is nearest.
        distances = [abs(one.batches[1] - batch) for one in profiles]
        nearest = distances.index(min(distances))
        counts = pixels((batch, *profiles[nearest].shape))
        with engine.ready({profiles[nearest].name: counts}, profile=nearest) as (work, _):
            work()  # TensorRT sets itself up at the first run, which no graph may hold
            with self._cuda.graph(work) as launch:
                yield launch

    @contextmanager
    def product(self, side: int, level: int | None) -> Iterator[Work]:
        content = product_onnx(side)
        built = self._tensorrt.build(content, [], precision="fp16", level=level)
        matrices = {name: matrix(side) for name in ("left", "right")}
        with self._tensorrt.load(built.plan) as engine, engine.ready(matrices) as (work, _):
            work()
            with self._cuda.graph(work) as launch:
                yield launch

    @contextmanager
    def copy(self, size: int) -> Iterator[Work]:
        with self._cuda.memory(size) as here, self._cuda.memory(size) as there:
            yield lambda: self._cuda.copy(there, here, size)


class TorchRunner:
    """The same ONNX file in PyTorch: what this GPU can do, where TensorRT is missing."""

    def __init__(self) -> None:
        """Raises: NoTensorRT, where PyTorch cannot take its place."""
        import torch

        if not torch.cuda.is_available():
            raise NoTensorRT(f"TensorRT is missing, and PyTorch {torch.__version__} sees no GPU")
        torch.backends.cudnn.allow_tf32 = False  # --precision fp32 means it
        self._torch = torch
        self.name = f"PyTorch {torch.__version__} in TensorRT's place"
        self.gpu = torch.cuda.get_device_name(0)

    @contextmanager
    def network(self, model: Path, options: Options) -> Iterator[Loaded]:
        from rehue_training.plan.torch_network import TorchNetwork

        network, contract = (
            TorchNetwork(options.onnx(model), "cuda"),
            spec.read_model_contract(model / CONFIG),
        )
        ((entry,), (result,)) = network.inputs, network.outputs
        found = parity.measure(
            lambda counts: network.run({entry: counts})[result],
            parity.onnx_network(model / "1" / ONNX),
            options.photographs(),
            contract,
            batch=contract.max_batch,
        )
        if beyond := found.exceeds(options.tolerance):
            raise PlanRefused(f"{model.name} in PyTorch is refused: {'; '.join(beyond)}")
        shape = (1, contract.height, contract.width)
        yield Loaded(found, lambda batch: self._graph(network, pixels((batch, *shape))))

    @contextmanager
    def _graph(self, work: Callable[..., object], *arrays: NDArray[Any]) -> Iterator[Work]:
        """A CUDA graph of the work, after the first runs, which choose the kernels."""
        torch = self._torch
        torch.backends.cudnn.benchmark = True
        tensors = [torch.from_numpy(one).cuda() for one in arrays]
        aside = torch.cuda.Stream()
        with torch.inference_mode():
            with torch.cuda.stream(aside):
                for _ in range(3):
                    work(*tensors)
            aside.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                work(*tensors)
        yield graph.replay

    def product(self, side: int, level: int | None) -> AbstractContextManager[Work]:  # noqa: ARG002 (TensorRT's)
        return self._graph(self._torch.mm, matrix(side), matrix(side))

    @contextmanager
    def copy(self, size: int) -> Iterator[Work]:
        there, here = (
            self._torch.empty(size, dtype=self._torch.uint8, device="cuda") for _ in range(2)
        )
        yield lambda: there.copy_(here)

    def seconds(self, work: Work) -> float:
        begin, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000


def pixels(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return random pixels, the same at each call."""
    return np.random.default_rng(SEED).integers(0, 256, shape, np.uint8)


def matrix(side: int) -> NDArray[np.float16]:
    """Square FP16, standard normal over its side's root, so that products stay in range."""
    values = np.random.default_rng(SEED).standard_normal((side, side), np.float32)
    return np.asarray(values / np.sqrt(side), np.float16)


def product_onnx(side: int) -> bytes:
    """An ONNX model of one product of two square FP16 matrices."""
    left, right, product = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT16, [side, side])
        for name in ("left", "right", "product")
    )
    node = helper.make_node("MatMul", ["left", "right"], ["product"])
    graph = helper.make_graph([node], "product", [left, right], [product])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
