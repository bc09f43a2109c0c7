"""Parameters that take one of a few words, read from the enums of the proto."""

from rehue_client.v1 import rehue_pb2

NAMES = ("format", "metadata", "depth", "profile", "mark")


def _read_words(name: str) -> dict[int, str]:
    """Return the words of an enum by their numbers: FORMAT_JPEG is "jpeg". 0 is the default."""
    values = getattr(rehue_pb2, name.title()).items()
    return {number: value.partition("_")[2].lower() for value, number in values}


WORDS = {name: _read_words(name) for name in NAMES}
LOOKS = _read_words("look")  # a part of edits
CHOICES = {name: tuple(words.values()) for name, words in WORDS.items()}  # the default first
