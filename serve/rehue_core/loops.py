"""Compile loops over pixels with Numba.

A compiled loop makes a single pass over the picture, releases the GIL and needs no temporary
picture. Constants in it are explicit float32, or Numba would compute in float64.
"""

from collections.abc import Callable, Collection
from typing import Any

from numba import njit


def compile_loop(loop: Callable[..., Any], fastmath: Collection[str] = ("contract",)) -> Any:
    """Compile a loop on its first call, and cache the result on disk where that is possible."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": set(fastmath)}
    try:
        return njit(cache=True, **options)(loop)
    except RuntimeError:  # no cache folder is writable
        return njit(**options)(loop)


def compile_row_loop(loop: Callable[..., Any]) -> Any:
    """Compile a loop over finite values; it may be made of vector instructions.

    Not for values from a network: the compiler assumes that none is NaN or infinite.
    """
    return compile_loop(loop, fastmath={"contract", "nnan", "ninf", "nsz"})


def inline_loop(function: Callable[..., Any]) -> Any:
    """Inline a function into the compiled loop that calls it."""
    return njit(inline="always")(function)
