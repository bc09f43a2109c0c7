"""The directory of a TIFF file that holds C2PA's signature of several pages.

It is the last of the chain and has no picture, so that libtiff cannot read it.
"""

import struct
from collections.abc import Iterator

_C2PA = 52545  # the tag
_MOST_DIRECTORIES = 1100  # files of more pages are refused
_BIG_VERSION = 43


def unlink_manifest(data: bytes) -> bytes:
    """End a TIFF file's chain of directories before the one of its signature.

    Returns:
        A copy; the file as it is where there is no such directory.
    """
    try:
        *_, _, (pointer, size, tags) = _iterate_directories(data)
    except (struct.error, ValueError):  # broken, or a single directory
        return data
    if tags != [_C2PA]:
        return data
    file = memoryview(data)
    return b"".join((file[:pointer], bytes(size), file[pointer + size :]))


def _iterate_directories(data: bytes) -> Iterator[tuple[int, int, list[int]]]:
    """Yield of each directory the place and size of the pointer to it, and its tags."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = struct.unpack_from(order + "H", data, 2)[0] == _BIG_VERSION
    count, address, entry, pointer = ("Q", "Q", 20, 8) if is_big else ("H", "I", 12, 4)
    for _ in range(_MOST_DIRECTORIES):
        (place,) = struct.unpack_from(order + address, data, pointer)
        if not place:
            return
        (entries,) = struct.unpack_from(order + count, data, place)
        first = place + struct.calcsize("=" + count)
        end = first + entry * entries
        if end > len(data):
            raise ValueError("a directory ends outside of the file")
        tags = [struct.unpack_from(order + "H", data, at)[0] for at in range(first, end, entry)]
        yield pointer, struct.calcsize("=" + address), tags
        pointer = end
