"""The processing before and after the network with scikit-image, for all peers.

It runs in the peers' environment, without Rehue's packages.
"""

import io
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import color, transform

MODEL = Path(__file__).parents[2] / "model_repository" / "rehue" / "1" / "model.onnx"
SIDE = 256  # height and width of the network's input
CORES = os.cpu_count() or 1


def prepare_input(data: bytes) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Return a photograph's lightness (HW, 0..100) and the network's input (1HW uint8)."""
    rgb = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    lightness = color.rgb2lab(rgb)[..., 0]
    small = transform.resize(lightness, (SIDE, SIDE), anti_aliasing=True)
    return lightness, np.rint(small / 100 * 255).astype(np.uint8)[None]


def compose_picture(lightness: NDArray[np.float64], ab: NDArray[np.float16]) -> bytes:
    """Return the JPEG for lightness (HW, 0..100) and the network's output (2hw, ab)."""
    large = transform.resize(np.moveaxis(ab, 0, -1).astype(float), (*lightness.shape, 2))
    rgb = color.lab2rgb(np.dstack([lightness, large]))
    file = io.BytesIO()
    Image.fromarray(np.rint(rgb * 255).astype(np.uint8)).save(file, "jpeg", quality=90)
    return file.getvalue()
