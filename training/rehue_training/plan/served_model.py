"""A model of the repository as Triton serves it on a GPU, read once: name, files and contract."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from rehue_core import spec
from rehue_core.colorize import ModelSpec

CONFIG_FILE = "configs/gpu.pbtxt"
ONNX_FILE = "model.onnx"


@dataclass(frozen=True)
class Profile:
    """An optimisation profile: the shapes of the input that TensorRT tunes kernels for."""

    input_name: str
    shape: tuple[int, ...]  # without the batch
    batches: tuple[int, int, int]  # smallest, the one tuned for, largest

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [(batch, *self.shape) for batch in self.batches]

    def __str__(self) -> str:
        shapes = "/".join("x".join(map(str, shape)) for shape in self.shapes)
        return f"{self.input_name} {shapes}"


@dataclass(frozen=True)
class ServedModel:
    """A model folder whose GPU configuration has been read and checked."""

    folder: Path  # such as model_repository/rehue
    contract: ModelSpec
    profiles: tuple[Profile, ...]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def version_folder(self) -> Path:
        """Where the ONNX file lies, and the plan built from it."""
        return self.folder / "1"

    @property
    def onnx_path(self) -> Path:
        return self.version_folder / ONNX_FILE


def find_served_models(repository: Path, names: Sequence[str] = ()) -> list[ServedModel]:
    """Loads the models that have a GPU configuration, or only those named.

    Raises:
        ValueError: there is no such model, or see `load_served_model`.
    """
    configs = repository.glob(f"*/{CONFIG_FILE}")
    folders = {path.parents[1].name: path.parents[1] for path in configs}
    missing = [name for name in names if name not in folders]
    if missing or not folders:
        raise ValueError(f"no {' or '.join(missing) or 'model'} with {CONFIG_FILE} in {repository}")
    return [load_served_model(folders[name]) for name in names or sorted(folders)]


def load_served_model(folder: Path) -> ServedModel:
    """Reads a model's GPU configuration.

    Raises:
        ValueError: the configuration is not one of ours, or makes Triton slow or wrong.
    """
    config = _read_config(folder / CONFIG_FILE)
    try:
        refuse_unsafe_config(config)
        contract = spec.parse_model_contract(config)
        profiles = derive_profiles(config)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG_FILE}: {error}") from None
    return ServedModel(folder, contract, tuple(profiles))


def _read_config(path: Path) -> Any:
    try:
        return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(f"{path} is not a model configuration: {error}") from None


def refuse_unsafe_config(config: Any) -> None:
    """Refuses settings of Triton that return wrong answers or stall its queue (docs/plans.md).

    Raises:
        ValueError: naming them.
    """
    cuda = config.optimization.cuda
    if cuda.graphs and cuda.output_copy_stream:
        raise ValueError(
            "graphs and output_copy_stream together return outputs of earlier requests"
        )
    batching = {field.name for field, _ in config.dynamic_batching.ListFields()}
    if stalling := sorted(batching - {"max_queue_delay_microseconds"}):
        raise ValueError(f"dynamic_batching with {' and '.join(stalling)} stalls Triton's queue")


def derive_profiles(config: Any) -> list[Profile]:
    """Derives the optimisation profiles that a ModelConfig names, for all of its batch sizes.

    A single one is tuned for the largest batch. Of several, the first is tuned for one photograph,
    the last for the largest batch, and those between are spaced evenly by ratio. Each covers only
    the batch sizes that Triton would run with it, those nearest to the size it is tuned for (the
    lower profile if two are equally near), so that no CUDA graph is captured that never runs.

    Raises:
        ValueError: the configuration has not one input and one instance group.
    """
    if (len(config.input), len(config.instance_group)) != (1, 1):
        raise ValueError("one input and one instance group are needed")
    (entry,), (group,) = config.input, config.instance_group
    tuned = _choose_tuned_batches(len(group.profile), config.max_batch_size)
    ends = [(size + following) // 2 for size, following in pairwise(tuned)]
    starts = [1, *(end + 1 for end in ends)]
    return [
        Profile(entry.name, tuple(entry.dims), (min(start, size), size, end))
        for start, size, end in zip(starts, tuned, [*ends, config.max_batch_size], strict=True)
    ]


def _choose_tuned_batches(count: int, largest: int) -> list[int]:
    if count < 2:
        return [largest]
    return [round(largest ** (step / (count - 1))) for step in range(count)]
