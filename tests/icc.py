"""ICC profiles, built from their parts."""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def build_gray_profile(curve: Callable[[NDArray[Any]], NDArray[Any]]) -> bytes:
    """An ICC profile for gray whose curve is a table (ICC.1:2001-04, 6.5.3)."""
    table = np.clip(curve(np.linspace(0, 1, 1024)), 0, 1)
    points = (table * 65535).round().astype(">u2").tobytes()
    curve_tag = b"curv" + bytes(4) + struct.pack(">I", 1024) + points
    return build_profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": curve_tag})


def build_cmyk_profile(lightness: NDArray[Any]) -> bytes:
    """An ICC profile of a press (ICC.1:2001-04, 6.5.10: lut8Type).

    Args:
        lightness: L, 0..100, of the 2 x 2 x 2 x 2 mixtures of no and full ink; gray all of them.
    """
    lab = np.full((2, 2, 2, 2, 3), 128, np.uint8)
    lab[..., 0] = np.rint(lightness * 2.55)
    line = bytes(range(256))
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = (
        b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + line * 4 + lab.tobytes() + line * 3
    )
    return build_profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table, b"A2B1": table})


def build_profile(kind: bytes, space: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(79),
        b"cprt": b"text" + bytes(4) + b"none\0\0\0\0",
        b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061),
        **tags,
    }
    place, index, body = 132 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        index += name + struct.pack(">II", place + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = place + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, kind, space, pcs)
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + index + body


def build_rgb_profile(columns: NDArray[Any], gamma: float) -> bytes:
    """An ICC profile for RGB of a matrix and a power (ICC.1:2001-04, 6.3.1.2).

    Args:
        columns: X, Y and Z at D50's white of full red, green and blue, one row each.
        gamma: light = value ** gamma.
    """
    tags = {}
    for name, color in zip("rgb", columns, strict=True):
        numbers = (round(part * 65536) for part in color)
        tags[f"{name}XYZ".encode()] = b"XYZ " + bytes(4) + struct.pack(">3i", *numbers)
        curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
        tags[f"{name}TRC".encode()] = curve
    return build_profile(b"mntr", b"RGB ", b"XYZ ", tags)


ADOBE_RGB = build_rgb_profile(
    np.array(
        [[0.60974, 0.31111, 0.01947], [0.20528, 0.62567, 0.06087], [0.14919, 0.06322, 0.74457]]
    ),
    563 / 256,
)
