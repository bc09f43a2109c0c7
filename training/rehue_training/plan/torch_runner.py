"""Runs the same ONNX files in PyTorch, to measure a GPU that has no TensorRT."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from numpy.typing import NDArray

from rehue_training.plan import parity
from rehue_training.plan.gpu_runners import LoadedNetwork, Work, make_counts, make_matrix
from rehue_training.plan.identity import PlanRefused
from rehue_training.plan.options import PlanOptions
from rehue_training.plan.served_model import ServedModel
from rehue_training.plan.tensorrt_package import NoTensorRT


class TorchRunner:
    """Runs the ONNX files in PyTorch: it measures the GPU, not the plans."""

    def __init__(self) -> None:
        """Raises: NoTensorRT, if PyTorch cannot replace it."""
        import torch

        if not torch.cuda.is_available():
            raise NoTensorRT(f"TensorRT is missing, and PyTorch {torch.__version__} sees no GPU")
        torch.backends.cudnn.allow_tf32 = False  # so that --precision fp32 is FP32
        self._torch = torch
        self.name = f"PyTorch {torch.__version__} in TensorRT's place"
        self.gpu = torch.cuda.get_device_name(0)

    @contextmanager
    def load_network(self, model: ServedModel, options: PlanOptions) -> Iterator[LoadedNetwork]:
        from rehue_training.plan.torch_network import TorchNetwork

        network, contract = TorchNetwork(options.convert_onnx(model), "cuda"), model.contract
        ((entry,), (result,)) = network.inputs, network.outputs
        found = parity.measure_parity(
            lambda counts: network.run({entry: counts})[result],
            parity.load_onnx_network(model.onnx_path),
            options.photographs(),
            contract,
            batch=contract.max_batch,
        )
        if excesses := found.list_excesses(options.tolerance):
            raise PlanRefused(f"{model.name} in PyTorch is refused: {'; '.join(excesses)}")
        shape = (1, contract.height, contract.width)
        yield LoadedNetwork(
            found, lambda batch: self._capture_graph(network, make_counts((batch, *shape)))
        )

    @contextmanager
    def _capture_graph(self, work: Callable[..., object], *arrays: NDArray[Any]) -> Iterator[Work]:
        """Captures the work as a CUDA graph, after the first runs, which choose the kernels."""
        torch = self._torch
        torch.backends.cudnn.benchmark = True
        tensors = [torch.from_numpy(array).cuda() for array in arrays]
        stream = torch.cuda.Stream()
        with torch.inference_mode():
            with torch.cuda.stream(stream):
                for _ in range(3):
                    work(*tensors)
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                work(*tensors)
        yield graph.replay

    def open_product(
        self,
        side: int,
        level: int | None,  # noqa: ARG002 (TensorRT's)
    ) -> AbstractContextManager[Work]:
        return self._capture_graph(self._torch.mm, make_matrix(side), make_matrix(side))

    @contextmanager
    def open_copy(self, size: int) -> Iterator[Work]:
        target, source = (
            self._torch.empty(size, dtype=self._torch.uint8, device="cuda") for _ in range(2)
        )
        yield lambda: target.copy_(source)

    def measure_seconds(self, work: Work) -> float:
        begin, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000
