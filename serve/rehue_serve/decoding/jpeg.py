"""JPEG files: the segments before the pixels (ITU-T T.81, B.1), and the pixels of intact ones."""

import struct
from collections.abc import Iterator

import simplejpeg

from rehue_core.lab import UInt8

_START_OF_SCAN, _BASELINE, _EXTENDED = 0xDA, 0xC0, 0xC1
_END = b"\xff\xd9"


def decode_intact(data: bytes, *, is_gray: bool) -> UInt8 | None:
    """Decode a JPEG file without any damage, in half of Pillow's time.

    Returns:
        HW gray or HW3 RGB, uint8; None if libjpeg-turbo warns of anything: Pillow then decides
        whether the file is read.
    """
    try:
        pixels: UInt8 = simplejpeg.decode_jpeg(data, "GRAY" if is_gray else "RGB", strict=True)
    except ValueError:
        return None
    return pixels[..., 0] if is_gray else pixels


def iterate_segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield marker, content and end of each segment up to the first scan's, this one included."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        end = place + 2 + int(struct.unpack_from(">H", data, place + 2)[0])
        yield marker, data[place + 4 : end], end
        if marker == _START_OF_SCAN:
            return
        place = end


def lacks_end_mark(data: bytes) -> bool:
    """Check if a sequential JPEG has no end mark behind its pixels.

    A progressive one is left alone: cut between two scans, it would look complete.
    """
    is_sequential = False
    for marker, _, end in iterate_segments(data):
        is_sequential |= marker in (_BASELINE, _EXTENDED)
        if marker == _START_OF_SCAN:
            return is_sequential and data.find(_END, end) < 0
    return False


def add_end_mark(data: bytes) -> bytes:
    """Append the end mark."""
    return data + _END
