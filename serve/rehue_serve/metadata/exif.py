"""Change an EXIF block in place, so that every other byte of it stays as it is.

The block is a TIFF structure (EXIF 3.0, 4.5 and 4.6). Rewriting it would move the maker notes,
whose offsets only their camera knows.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_ORIENTATION, _EXIF_IFD = 0x0112, 0x8769
_THUMBNAIL_OFFSET, _THUMBNAIL_LENGTH = 0x0201, 0x0202
_COLOR_SPACE, _WIDTH, _HEIGHT = 0xA001, 0xA002, 0xA003
_SHORT, _LONG = 3, 4
_SRGB, _UNCALIBRATED = 1, 0xFFFF
_MOST_ENTRIES = 4096


class BrokenExif(ValueError):
    """The block is not a TIFF structure."""


@dataclass(frozen=True)
class _Entry:
    tag: int
    kind: int
    count: int
    place: int  # of the value in the block


class _Block:
    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        order = {b"II": "<", b"MM": ">"}.get(data[:2])
        if order is None or len(data) < 8:
            raise BrokenExif("no byte order")
        self.order = order

    def unpack(self, kind: str, place: int) -> int:
        if place < 0 or place + struct.calcsize(kind) > len(self.data):
            raise BrokenExif("an offset is outside of the block")
        return int(struct.unpack_from(self.order + kind, self.data, place)[0])

    def iterate_entries(self, directory: int) -> Iterator[_Entry]:
        count = self.unpack("H", directory)
        if count > _MOST_ENTRIES:
            raise BrokenExif("too many entries")
        for place in range(directory + 2, directory + 2 + 12 * count, 12):
            yield _Entry(
                self.unpack("H", place), self.unpack("H", place + 2),
                self.unpack("I", place + 4), place + 8,
            )  # fmt: skip

    def next_directory(self, directory: int) -> int:
        return directory + 2 + 12 * self.unpack("H", directory)

    def read(self, entry: _Entry) -> int | None:
        """Read a SHORT or LONG of one value."""
        if entry.count != 1 or entry.kind not in (_SHORT, _LONG):
            return None
        return self.unpack("H" if entry.kind == _SHORT else "I", entry.place)

    def write(self, entry: _Entry, value: int) -> None:
        if entry.count == 1 and entry.kind in (_SHORT, _LONG):
            kind = "H" if entry.kind == _SHORT else "I"
            struct.pack_into(self.order + kind, self.data, entry.place, value)


def update_exif(block: bytes, width: int, height: int, *, is_srgb: bool = True) -> bytes:
    r"""Update an EXIF block to describe the colorized picture.

    The orientation becomes 1, since it is applied; the color space sRGB, or uncalibrated where
    a profile says it; the size that of the picture. The thumbnail, which is the gray
    photograph's, is dropped.

    Args:
        block: the TIFF structure, with or without ``Exif\0\0`` before it.
        width: of the upright picture.
        height: of the upright picture.
        is_srgb: whether its colors are.

    Returns:
        The TIFF structure, without ``Exif\\0\\0``; empty if the block is broken.
    """
    try:
        space = _SRGB if is_srgb else _UNCALIBRATED
        return _update(_Block(block.removeprefix(b"Exif\0\0")), width, height, space)
    except (BrokenExif, struct.error):
        return b""


def _update(block: _Block, width: int, height: int, space: int) -> bytes:
    main = block.unpack("I", 4)
    values = {_ORIENTATION: 1, _COLOR_SPACE: space, _WIDTH: width, _HEIGHT: height}
    directories = [main]
    directories += [
        block.unpack("I", entry.place)
        for entry in block.iterate_entries(main)
        if entry.tag == _EXIF_IFD
    ]
    for directory in directories:
        for entry in block.iterate_entries(directory):
            if entry.tag in values:
                block.write(entry, values[entry.tag])
    _drop_thumbnail(block, block.next_directory(main))
    return bytes(block.data)


def _drop_thumbnail(block: _Block, pointer: int) -> None:
    directory = block.unpack("I", pointer)
    if not directory:
        return
    struct.pack_into(block.order + "I", block.data, pointer, 0)
    try:
        found = {entry.tag: block.read(entry) for entry in block.iterate_entries(directory)}
    except BrokenExif:
        return
    start, length = found.get(_THUMBNAIL_OFFSET), found.get(_THUMBNAIL_LENGTH)
    if start and length and 8 <= start < start + length <= len(block.data):
        if start + length == len(block.data):
            del block.data[start:]
        else:
            block.data[start : start + length] = bytes(length)
