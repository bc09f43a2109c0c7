"""Runs a plan that is loaded on the GPU."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehue_training.plan.cuda import Cuda
from rehue_training.plan.tensorrt_package import BuildFailed

Array = NDArray[Any]
Tensors = Mapping[str, Array]


class Engine:
    """A plan on the GPU."""

    def __init__(self, module: Any, cuda: Cuda, engine: Any) -> None:
        """Creates an execution context for the plan.

        Args:
            module: the package `tensorrt`.
            engine: its `ICudaEngine`.

        Raises:
            BuildFailed: the GPU has no room for it.
        """
        self._module, self._cuda, self._engine = module, cuda, engine
        self._context = engine.create_execution_context()
        if self._context is None:
            raise BuildFailed("TensorRT has not enough memory to run the plan; its log says why")
        self.inputs, self.outputs = self._list_tensors("INPUT"), self._list_tensors("OUTPUT")

    @property
    def profile_count(self) -> int:
        return int(self._engine.num_optimization_profiles)

    @property
    def tensor_types(self) -> dict[str, np.dtype[Any]]:
        """The types of the inputs and outputs, by name."""
        names = [*self.inputs, *self.outputs]
        types = (self._module.nptype(self._engine.get_tensor_dtype(name)) for name in names)
        return dict(zip(names, map(np.dtype, types), strict=True))

    def run(self, tensors: Tensors, *, profile: int = 0) -> dict[str, Array]:
        """Returns the outputs for these inputs, by name."""
        with self.prepare_run(tensors, profile=profile) as (queue, fetch_outputs):
            queue()
            return fetch_outputs()

    @contextmanager
    def prepare_run(
        self, tensors: Tensors, *, profile: int = 0
    ) -> Iterator[tuple[Callable[[], None], Callable[[], dict[str, Array]]]]:
        """Copies the inputs to the GPU and allocates memory for the outputs there.

        Yields:
            A function that queues one inference on the stream, and one that waits for it and
            fetches the outputs.

        Raises:
            BuildFailed: the plan does not take these shapes.
        """
        self._select_profile(profile)
        with ExitStack() as stack:
            for name, array in tensors.items():
                if not self._context.set_input_shape(name, tuple(array.shape)):
                    raise BuildFailed(f"the plan does not take {name} of shape {array.shape}")
                self._cuda.upload(self._allocate(stack, name, array), np.ascontiguousarray(array))
            outputs = {name: self._create_output(name) for name in self.outputs}
            addresses = {
                name: self._allocate(stack, name, array) for name, array in outputs.items()
            }

            def fetch_outputs() -> dict[str, Array]:
                for name, array in outputs.items():
                    self._cuda.download(array, addresses[name])
                return outputs

            yield self._queue, fetch_outputs

    def _queue(self) -> None:
        if not self._context.execute_async_v3(self._cuda.stream):
            raise BuildFailed("TensorRT could not run the plan; its log says why")

    def _select_profile(self, number: int) -> None:
        if not self._context.set_optimization_profile_async(number, self._cuda.stream):
            raise BuildFailed(f"the plan has no optimisation profile {number}")

    def _allocate(self, stack: ExitStack, name: str, array: Array) -> int:
        address = stack.enter_context(self._cuda.allocate(array.nbytes))
        self._context.set_tensor_address(name, address)
        return address

    def _create_output(self, name: str) -> Array:
        return np.empty(tuple(self._context.get_tensor_shape(name)), self.tensor_types[name])

    def _list_tensors(self, mode: str) -> list[str]:
        wanted = getattr(self._module.TensorIOMode, mode)
        names = map(self._engine.get_tensor_name, range(self._engine.num_io_tensors))
        return [name for name in names if self._engine.get_tensor_mode(name) == wanted]
