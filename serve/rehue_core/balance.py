"""Warmth and tint of an ab field, as if the scene's light had another colour.

A change of the light scales X and Z relative to Y (von Kries' adaptation, in the XYZ space that
Lab is built on). In Lab that scales f(X) and f(Z) by the cube roots, so that bright places change
more than dark ones, and lightness not at all.
"""

import numpy as np

from rehue_core.lab import Float32

# White points of CIE daylight, relative to Y (CIE 15): X and Z of D50 over those of D65.
WARMER = (0.96422 / 0.95047, 0.82521 / 1.08883)
WARMTH_RANGE = 2.0  # steps from D65 to D50 that a warmth of 1 stands for
TINT_RANGE = 1.12  # factor of X and Z that a tint of 1 stands for: less green light


def shift_balance(ab: Float32, lightness: Float32, warmth: float, tint: float) -> Float32:
    """Return ab as under a warmer or cooler, more magenta or greener light.

    Args:
        ab: hw2, Lab units.
        lightness: hw, 0..100, of the same size.
        warmth: -1 (bluish) to 1 (yellowish); 0.5 is the step from daylight D65 to D50.
        tint: -1 (green) to 1 (magenta).
    """
    gains = (gain ** (warmth * WARMTH_RANGE) * TINT_RANGE**tint for gain in WARMER)
    scale_x, scale_z = (np.float32(np.cbrt(gain)) for gain in gains)
    fy = (lightness + np.float32(16)) / np.float32(116)
    fx, fz = fy + ab[..., 0] / np.float32(500), fy - ab[..., 1] / np.float32(200)
    return np.dstack([(fx * scale_x - fy) * np.float32(500), (fy - fz * scale_z) * np.float32(200)])
