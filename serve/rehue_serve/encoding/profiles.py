"""Pictures in the photograph's own RGB profile, by littlecms through libvips."""

import io
from functools import lru_cache
from typing import Any

import numpy as np
import pyvips
from numpy.typing import NDArray
from PIL import ImageCms

from rehue_core import lab
from rehue_core.lab import Float32, Lightness
from rehue_core.light import clean_field, enlarge_rows
from rehue_serve.decoding.color import PROFILE
from rehue_serve.decoding.profiles import is_srgb_profile

LARGEST = 4 << 20  # bytes; a JPEG has no place for more than 16 MB
STRIP_PIXELS = 1 << 17  # that are converted at a time
# Bradford's adaptation of D65 to D50, the white of ICC profiles (ICC.1:2022, annex E).
_BRADFORD = np.array(
    [
        [1.0479298, 0.0229469, -0.0501923],
        [0.0296278, 0.9904345, -0.0170738],
        [-0.0092430, 0.0150552, 0.7518743],
    ]
)
_D50 = np.array([0.9642, 1.0, 0.8249])


@lru_cache(maxsize=64)
def is_output_profile(profile: bytes) -> bool:
    """Check if a picture can be converted to a profile: one of RGB that is not sRGB.

    Scanners' profiles may convert only from their colours, not to them.
    """
    if not profile or len(profile) > LARGEST:
        return False
    try:
        found = ImageCms.getOpenProfile(io.BytesIO(profile)).profile
        if found.xcolor_space.strip() != "RGB" or is_srgb_profile(profile):
            return False
        convert_to_profile(np.full((1, 1), 50, np.float32), np.zeros((1, 1, 2)), profile)
    except (ImageCms.PyCMSError, OSError, ValueError, AttributeError, pyvips.Error):
        return False
    return True


def convert_to_profile(
    lightness: Lightness,
    ab: NDArray[Any],
    profile: bytes,
    *,
    strength: float = 1.0,
    dtype: Any = np.uint8,
    rows: slice = slice(None),
) -> NDArray[Any]:
    """Convert a lightness and an ab field to the RGB of a profile.

    The L of the picture, as its profile defines it, is the photograph's.

    Args and result: as `rehue_core.rgb.convert_to_rgb`.
    """
    first, last, _ = rows.indices(len(lightness))
    width = lightness.shape[1]
    out = np.empty((last - first, width, 3), dtype)
    field = clean_field(ab, strength)
    step = max(1, STRIP_PIXELS // width)
    for top in range(first, last, step):
        strip = slice(top, min(top + step, last))
        colors = _adapt_to_d50(
            lightness[strip] * np.float32(lab.get_lightness_unit(lightness.dtype)),
            enlarge_rows(field, (len(lightness), width), strip),
        )
        out[top - first : strip.stop - first] = _export_to_profile(colors, profile, np.dtype(dtype))
    return out


def _adapt_to_d50(lightness: Float32, ab: Float32) -> Float32:
    """Return the Lab (HW3) at D50's white of an L (HW) and an ab (2HW) at D65's."""
    fy = (lightness + 16) / 116
    f = np.stack([fy + ab[0] / 500, fy, np.maximum(fy - ab[1] / 200, 0)], axis=-1)
    xyz = np.where(f > lab.LINEAR_F_LIMIT, f**3, (f - 16 / 116) / 7.787)
    adapted = xyz @ ((_BRADFORD * lab.WHITE) / _D50[:, None]).T.astype(np.float32)
    f = np.where(adapted > 0.008856, np.cbrt(adapted), 7.787 * adapted + 16 / 116)
    out = np.empty_like(f, np.float32)
    out[..., 0] = lightness
    out[..., 1], out[..., 2] = 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])
    return out


def _export_to_profile(colors: Float32, profile: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    height, width, _ = colors.shape
    image = pyvips.Image.new_from_memory(colors.data, width, height, 3, "float")
    image = image.copy(interpretation="lab")
    image.set_type(pyvips.GValue.blob_type, PROFILE, profile)
    exported = image.icc_export(intent="relative", depth=8 * dtype.itemsize)
    return np.frombuffer(exported.write_to_memory(), dtype).reshape(height, width, 3)
