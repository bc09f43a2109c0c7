"""The colorized picture, composed row by row when its encoder asks for it."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehue_core.lab import Lightness
from rehue_core.rgb import convert_to_rgb
from rehue_serve.encoding.mark import draw_mark
from rehue_serve.encoding.profiles import convert_to_profile


class ComposedPicture:
    """A picture of which only the photograph's lightness and the network's ab are in memory.

    ``picture[top:bottom]`` gives rows, HW3 RGB or HW4 with alpha, of `dtype`.
    """

    def __init__(
        self,
        lightness: Lightness,
        alpha: NDArray[Any] | None,
        ab: NDArray[Any],
        *,
        strength: float,
        dtype: Any,
        profile: bytes = b"",
        marked: bool = False,
    ) -> None:
        """Keep what the picture is made of.

        Args:
            lightness: HW float32 or uint16; see `rehue_core.lab.Lightness`.
            alpha: HW uint8 or uint16, or None.
            ab: hw2; see `rehue_core.rgb.convert_to_rgb`.
            strength: scales chroma.
            dtype: of the picture: np.uint8 or np.uint16.
            profile: ICC profile of its RGB, see `rehue_serve.encoding.profiles`; empty: sRGB.
            marked: lay the visible mark over it.
        """
        self._lightness, self._alpha = lightness, alpha
        self._ab, self._strength = ab, strength
        self.dtype = np.dtype(dtype)
        self._profile = profile
        self._mark = draw_mark(*lightness.shape) if marked else None
        self.shape = (*lightness.shape, 3 if alpha is None else 4)
        self.seconds = 0.0  # spent on composing

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        started = time.perf_counter()
        rgb = self._compose(rows)
        if self._alpha is not None:
            rgb = np.dstack([rgb, _fit_depth(self._alpha[rows], self.dtype)])
        if self._mark is not None:
            self._mark.blend(rgb, rows.start or 0)
        self.seconds += time.perf_counter() - started
        return rgb

    def _compose(self, rows: slice) -> NDArray[Any]:
        lightness, ab, strength = self._lightness, self._ab, self._strength
        if self._profile:
            return convert_to_profile(
                lightness, ab, self._profile, strength=strength, dtype=self.dtype, rows=rows
            )
        return convert_to_rgb(lightness, ab, strength=strength, dtype=self.dtype, rows=rows)


def _fit_depth(alpha: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Convert alpha to the depth of the picture."""
    if alpha.dtype == dtype:
        return alpha
    return (alpha >> 8).astype(dtype) if dtype == np.uint8 else alpha.astype(dtype) * np.uint16(257)
