"""ICC profiles of photographs, by littlecms."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from rehue_core.lab import UInt8


@lru_cache(maxsize=64)
def is_srgb_profile(profile: bytes) -> bool:
    """Check if an ICC profile means the same colors as sRGB.

    A gray profile counts if its curve is sRGB's. Some colors are converted and compared, because
    sRGB profiles differ in their texts and rounding.
    """
    try:
        source = ImageCms.getOpenProfile(io.BytesIO(profile))
        kind = source.profile.xcolor_space.strip()
        if kind not in ("RGB", "GRAY"):
            return False
        steps = np.linspace(0, 255, 18).astype(np.uint8)
        if kind == "GRAY":
            samples: UInt8 = steps[None]
            expected = np.repeat(samples[..., None], 3, axis=2)
        else:
            grid = np.stack(np.meshgrid(steps[::4], steps[::4], steps[::4]), axis=-1)
            samples = expected = grid.reshape(1, -1, 3)
        mode = "L" if kind == "GRAY" else "RGB"
        transform = ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), mode, "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        )  # fmt: skip
        converted = np.asarray(ImageCms.applyTransform(Image.fromarray(samples), transform))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
        return True  # a broken profile never costs the picture
    difference = np.abs(converted.astype(np.int16) - expected.astype(np.int16))
    return bool(difference.max() <= 2)
