"""What a caller chooses for one photograph."""

from dataclasses import dataclass

from rehue_client.choices import CHOICES
from rehue_core.edits import LOOKS, NO_EDITS, Edits
from rehue_core.looks import RUNS
from rehue_serve.errors import InvalidParameter, UnknownModel

MAX_MODEL_NAME = 255  # characters; it is the name of a folder
SMALLEST, LARGEST, DEFAULT_SIZE = 64, 2048, 512  # pixels on the long side of candidates
DEFAULT_QUALITY = 92  # of JPEG and WebP; no visible loss, a third of the bytes of 100


@dataclass(frozen=True)
class Parameters:
    """A caller's choices; raises InvalidParameter or UnknownModel for wrong values."""

    model: str = ""
    strength: float = 1.0
    format: str = "auto"
    quality: int = DEFAULT_QUALITY
    metadata: str = "keep"
    depth: str = "auto"  # 8: not more bits a sample, whatever the photograph has
    profile: str = "srgb"  # keep: the photograph's own, if it is one of RGB
    mark: str = "none"  # visible: a small mark in the corner
    edits: Edits = NO_EDITS
    reference: bytes = b""  # an encoded picture whose main colours are the palette
    size: int = DEFAULT_SIZE  # of candidates: pixels on the long side
    more_looks: bool = False  # candidates of the other looks too

    def __post_init__(self) -> None:
        if len(self.model) > MAX_MODEL_NAME:
            raise UnknownModel("No model has such a long name; see /v1/models.")
        if not 0 <= self.strength <= 2:  # also refuses NaN
            raise InvalidParameter(f"strength is {self.strength}; it must be from 0 to 2.")
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise InvalidParameter(
                    f"{name} is {value!r}; it must be one of {', '.join(allowed)}."
                )
        if not 1 <= self.quality <= 100:
            raise InvalidParameter(f"quality is {self.quality}; it must be from 1 to 100.")
        if not SMALLEST <= self.size <= LARGEST:
            raise InvalidParameter(f"size is {self.size}; it must be from {SMALLEST} to {LARGEST}.")
        if self.reference and self.edits.palette:
            raise InvalidParameter("reference and palette are both given; send one of them.")

    @property
    def looks(self) -> tuple[str, ...]:
        """The looks of the network that are needed, that of the edits first."""
        own = self.edits.look
        return (own, *(look for look in LOOKS if look != own)) if self.more_looks else (own,)

    @property
    def runs(self) -> int:
        """Runs of the network at a time, at most."""
        return sum(RUNS[look] for look in self.looks)
