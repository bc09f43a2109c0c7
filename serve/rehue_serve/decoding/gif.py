"""Count the frames of a GIF (GIF89a, 18 to 26), a block at a time and without decoding."""

MOST_FRAMES = 1000  # counted; Pillow would take seconds for a file of a million
_IMAGE, _EXTENSION = 0x2C, 0x21


def count_frames(data: bytes) -> int:
    """Count frames, up to `MOST_FRAMES`; at least 1, whatever the file holds."""
    if len(data) < 13:
        return 1
    place, frames = 13 + _measure_color_table(data[10]), 0
    while place < len(data) and frames < MOST_FRAMES:
        if data[place] == _IMAGE and place + 10 < len(data):
            frames += 1
            place = _skip_blocks(data, place + 11 + _measure_color_table(data[place + 9]))
        elif data[place] == _EXTENSION:
            place = _skip_blocks(data, place + 2)
        else:
            break
    return max(1, frames)


def _measure_color_table(packed: int) -> int:
    return 3 << ((packed & 7) + 1) if packed & 0x80 else 0


def _skip_blocks(data: bytes, place: int) -> int:
    while place < len(data) and data[place]:
        place += data[place] + 1
    return place + 1
