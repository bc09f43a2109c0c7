"""A model of the repository as Triton serves it on a GPU, read once: name, files and contract."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rehue_core import spec
from rehue_core.colorize import ModelSpec

CONFIG = "configs/gpu.pbtxt"


@dataclass(frozen=True)
class ServedModel:
    """A model folder whose GPU configuration has been read and checked."""

    folder: Path  # such as model_repository/rehue
    contract: ModelSpec

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def version_folder(self) -> Path:
        """Where the ONNX file lies, and the plan built from it."""
        return self.folder / "1"

    @property
    def onnx_path(self) -> Path:
        return self.version_folder / "model.onnx"


def find_served_models(repository: Path, names: Sequence[str] = ()) -> list[ServedModel]:
    """Loads the models that have a GPU configuration, or only those named.

    Raises:
        ValueError: there is no such model, or its configuration is not one of ours.
    """
    folders = {path.parents[1].name: path.parents[1] for path in repository.glob(f"*/{CONFIG}")}
    missing = [name for name in names if name not in folders]
    if missing or not folders:
        raise ValueError(f"no {' or '.join(missing) or 'model'} with {CONFIG} in {repository}")
    return [load_served_model(folders[name]) for name in names or sorted(folders)]


def load_served_model(folder: Path) -> ServedModel:
    """Reads a model's GPU configuration.

    Raises:
        ValueError: the configuration is not one of ours.
    """
    return ServedModel(folder, spec.read_model_contract(folder / CONFIG))
