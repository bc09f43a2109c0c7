"""Bounds on the directories of a TIFF structure: a file's, or those of an EXIF block.

The libraries that read tags copy every value, one number at a time, and follow every pointer.
Values and directories may overlap, so that a small file can hold any number of them.
"""

import contextlib
import struct

from rehue_serve.errors import ImageTooLarge, InvalidImage

MOST_PAGES = 1000  # reading the tags of so many takes a third of a second
MOST_DIRECTORIES = MOST_PAGES + 100  # with sub-pages, and those of EXIF
MOST_TAGS = 50_000  # a page has some twenty
MOST_NUMBERS = 300_000  # of values that are no bytes: two for each strip or tile
_SLACK = 1 << 20  # bytes of values beyond the size: pages may share a profile
_BIG_VERSION = 43
_POINTERS = {330, 34665, 34853, 40965}  # tags of further directories: sub-pages, EXIF, GPS
_BYTES = {1, 2, 6, 7}  # types of one byte
_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


def check_directories(data: bytes) -> None:
    """Check that the directories can be read in moments; broken ones are left to the reader.

    Raises:
        ImageTooLarge: there are too many.
        InvalidImage: they have too many or too large tags.
    """
    try:
        walk = _Walk(data)
    except struct.error:
        return
    while walk.waiting:
        with contextlib.suppress(struct.error):
            walk.visit(walk.waiting.pop())
        walk.check()


class _Walk:
    """The directories that have been counted, and those that wait for it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = "<" if data[:2] == b"II" else ">"
        is_big = self.unpack("H", 2) == _BIG_VERSION
        self.count, self.word, self.entry = ("Q", "Q", 20) if is_big else ("H", "I", 12)
        self.size = 8 if is_big else 4  # bytes of a word
        self.waiting = [self.unpack(self.word, self.size)]
        self.seen: set[int] = set()
        self.directories, self.tags, self.numbers = 1, 0, 0
        self.bytes_left = 2 * len(data) + _SLACK

    def unpack(self, kind: str, place: int) -> int:
        return int(struct.unpack_from(self.order + kind, self.data, place)[0])

    def check(self) -> None:
        if self.directories > MOST_DIRECTORIES:
            raise ImageTooLarge(f"The TIFF has over {MOST_PAGES:,} pages, which is the limit.")
        if self.tags > MOST_TAGS or self.numbers > MOST_NUMBERS or self.bytes_left < 0:
            raise InvalidImage("The image has too many or too large tags.")

    def visit(self, place: int) -> None:
        """Count a directory's tags, and note the directories that it points to."""
        if not place or place in self.seen:  # readers leave a circle
            return
        self.seen.add(place)
        entries = self.unpack(self.count, place)
        self.tags += entries
        self.check()
        first = place + struct.calcsize("=" + self.count)
        end = first + entries * self.entry
        for at in range(first, end, self.entry):
            self._visit_tag(at)
        self._note(self.word, end, 1)

    def _visit_tag(self, at: int) -> None:
        tag, kind = struct.unpack_from(self.order + "HH", self.data, at)
        number, value = self.unpack(self.word, at + 4), at + 4 + self.size
        size = number * _SIZES.get(kind, 1)
        self.bytes_left -= size
        self.numbers += 0 if kind in _BYTES else number
        if tag in _POINTERS:
            with contextlib.suppress(struct.error):  # the tags behind it count
                place = value if size <= self.size else self.unpack(self.word, value)
                self._note({8: "Q"}.get(_SIZES.get(kind, 4), "I"), place, number)

    def _note(self, kind: str, place: int, number: int) -> None:
        """Note directories by the pointers at a place."""
        self.directories += number
        self.check()
        step = struct.calcsize("=" + kind)
        for at in range(place, place + number * step, step):
            self.waiting.append(self.unpack(kind, at))
