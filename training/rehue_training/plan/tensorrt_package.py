"""Finds TensorRT's Python package, and refuses one that is not of the library that it loads.

`python -m rehue_training.plan.tensorrt_package` needs no GPU: the build of the Triton image runs
it.
"""

import ctypes
import importlib.util
import sys
from typing import Any


class NoTensorRT(RuntimeError):
    """TensorRT's Python package is not installed here."""


class BuildFailed(RuntimeError):
    """TensorRT could not build or load; the message holds its own reasons."""


def load_tensorrt() -> tuple[Any, str]:
    """Imports TensorRT's Python package.

    Returns:
        The package, and the version of the library libnvinfer that it loads.

    Raises:
        NoTensorRT: the package, or a library that it needs, is missing.
        BuildFailed: the package is of another TensorRT than the library.
    """
    package = _import_package()
    bindings = str(package.__version__)
    library = read_library_version(ctypes.CDLL(f"libnvinfer.so.{bindings.partition('.')[0]}"))
    refuse_other_release(bindings, library)
    return package, library


def _import_package() -> Any:
    """Imports NVIDIA's complete package, or its bindings alone.

    Raises:
        NoTensorRT: neither is installed, or finds its library.
    """
    for name in ("tensorrt", "tensorrt_bindings"):
        if importlib.util.find_spec(name) is None:
            continue
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise NoTensorRT(f"TensorRT's Python package cannot be imported ({error})") from None
    raise NoTensorRT("TensorRT's Python package is not installed")


def read_library_version(library: Any) -> str:
    """Returns libnvinfer's own version, such as "11.1.0.106"."""
    parts = ("Major", "Minor", "Patch", "Build")
    try:
        return ".".join(str(getattr(library, f"getInferLib{part}Version")()) for part in parts)
    except AttributeError:
        number = library.getInferLibVersion()  # 8.6 has only this function, and returns 8600
        return f"{number // 1000}.{number // 100 % 10}.{number % 100}"


def refuse_other_release(bindings: str, library: str) -> None:
    """Refuses bindings that differ from the library in major, minor or patch version.

    They would call functions with other arguments. Builds of one patch version have one API, and a
    container may carry another build than the bindings on PyPI.

    Raises:
        BuildFailed: they differ.
    """
    if bindings.split(".")[:3] != library.split(".")[:3]:
        raise BuildFailed(
            f"TensorRT's Python bindings are {bindings}, but libnvinfer is {library}: "
            f"install the bindings of {library}"
        )


def main() -> int:
    """Report whether the bindings and the library fit; return the exit code."""
    try:
        package, library = load_tensorrt()
    except (NoTensorRT, BuildFailed, OSError) as error:
        print(f"rehue: {error}", file=sys.stderr)
        return 1
    print(f"TensorRT's bindings {package.__version__} and libnvinfer {library} fit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
