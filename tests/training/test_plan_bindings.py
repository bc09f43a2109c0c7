"""TensorRT's library and its Python bindings: versions that fit."""

import ctypes
from importlib.util import find_spec
from pathlib import Path

import pytest
from standin import HostCuda

import rehue_training.plan.tensorrt
from rehue_training.plan.tensorrt import load_on_first_gpu
from rehue_training.plan.tensorrt_package import (
    BuildFailed,
    NoTensorRT,
    read_library_version,
    refuse_other_release,
)  # fmt: skip


class Nvinfer:
    """libnvinfer's functions that tell its version."""

    def __init__(self, version: str) -> None:
        names = ("Major", "Minor", "Patch", "Build")
        for name, value in zip(names, version.split("."), strict=True):
            setattr(self, f"getInferLib{name}Version", lambda value=int(value): value)


class Nvinfer8:
    @staticmethod
    def getInferLibVersion() -> int:
        return 8601


def test_the_bindings_must_be_of_the_library() -> None:
    """Its major, minor and patch version; builds of one version have the same functions."""
    assert read_library_version(Nvinfer("11.1.0.106")) == "11.1.0.106"
    assert read_library_version(Nvinfer8()) == "8.6.1"
    for bindings, library in (("11.1.0.106", "11.1.0.106"), ("8.6.1", "8.6.1"),
                              ("11.1.0.106", "11.1.0.99"),
                              ("10.13.3.9.post1", "10.13.3.9")):  # fmt: skip
        refuse_other_release(bindings, library)
    for other in ("11.1.1.106", "11.2.0.106", "12.1.0.106"):
        with pytest.raises(BuildFailed, match=rf"are 11\.1\.0\.106, but libnvinfer is {other}: "):
            refuse_other_release("11.1.0.106", other)


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="for where TensorRT is not whole")
def test_the_bindings_alone_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehue_training.plan.tensorrt, "Cuda", HostCuda)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Nvinfer("11.1.0.99"))
    with pytest.raises(NoTensorRT, match="is not installed"):
        load_on_first_gpu()
    monkeypatch.syspath_prepend(tmp_path)
    code = "__version__ = '11.1.0.106'\nclass Logger(int):\n    WARNING = 2\n"
    (tmp_path / "tensorrt_bindings.py").write_text(code)
    assert load_on_first_gpu().version == "11.1.0.99"  # the library's: it builds
