"""Count the frames of a GIF (GIF89a, 18 to 26), a block at a time and without decoding."""

MOST_FRAMES = 1000  # counted; Pillow would take seconds for a file of a million
MOST_BLOCKS = 2_000_000  # looked at, of up to 255 bytes each: more than 500 MB of pixels
_IMAGE, _EXTENSION = 0x2C, 0x21


def count_frames(data: bytes) -> int:
    """Count frames, up to `MOST_FRAMES`; at least 1, whatever the file holds."""
    if len(data) < 13:
        return 1
    place, frames, left = 13 + _measure_color_table(data[10]), 0, MOST_BLOCKS
    while place < len(data) and frames < MOST_FRAMES and left > 0:
        if data[place] == _IMAGE and place + 10 < len(data):
            frames += 1
            place += 11 + _measure_color_table(data[place + 9])
        elif data[place] == _EXTENSION:
            place += 2
        else:
            break
        place, left = _skip_blocks(data, place, left)
    return max(1, frames)


def _measure_color_table(packed: int) -> int:
    return 3 << ((packed & 7) + 1) if packed & 0x80 else 0


def _skip_blocks(data: bytes, place: int, left: int) -> tuple[int, int]:
    """Return the place behind the blocks, and how many more may be looked at."""
    while place < len(data) and data[place] and left > 0:
        place += data[place] + 1
        left -= 1
    return place + 1, left - 1
