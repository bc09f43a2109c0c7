"""Parameters that take one of a few words, read from the enums of the proto."""

from rehue_client.v1 import rehue_pb2

NAMES = ("format", "metadata", "depth", "profile", "mark")

# By parameter, its words by their numbers: FORMAT_JPEG is "jpeg". Number 0 is the default.
WORDS: dict[str, dict[int, str]] = {
    name: {
        number: value.partition("_")[2].lower()
        for value, number in getattr(rehue_pb2, name.title()).items()
    }
    for name in NAMES
}
CHOICES = {name: tuple(words.values()) for name, words in WORDS.items()}  # the default first
