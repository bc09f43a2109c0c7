"""Versions of one photograph, as encoded pictures to choose from."""

from collections.abc import Mapping
from dataclasses import dataclass

from rehue_core import lab
from rehue_core.candidates import apply_candidate, choose_candidates
from rehue_core.edits import Edits
from rehue_core.rgb import convert_to_rgb
from rehue_serve.encoding.pictures import encode_pictures
from rehue_serve.metadata.answer import complete_metadata
from rehue_serve.metadata.containers import Metadata

QUALITY = 85  # of the JPEGs


@dataclass(frozen=True)
class Candidate:
    """One version of a photograph: its name and parameters, and the picture as a JPEG."""

    name: str
    strength: float
    edits: Edits
    data: bytes


@dataclass(frozen=True)
class Candidates:
    """Versions of one photograph to choose from."""

    candidates: list[Candidate]
    model: str  # name/version
    timings: dict[str, float]  # ms, by stage

    @property
    def data(self) -> bytes:
        """All pictures, one after another."""
        return b"".join(candidate.data for candidate in self.candidates)


def compose_candidates(
    lightness: lab.Lightness,
    fields: Mapping[str, lab.Float32],
    *,
    strength: float,
    edits: Edits,
    size: int,
    model: str,
) -> list[Candidate]:
    """Choose versions that differ visibly, and compose, mark and encode each.

    Args:
        lightness: HW of the photograph; see `rehue_core.lab.Lightness`.
        fields: the network's outputs; see `choose_candidates`.
        strength: of the chroma, 0 to 2, as asked for.
        edits: as asked for.
        size: pixels on the long side of the pictures, which are not enlarged.
        model: name and version of the network.
    """
    scale = min(1.0, size / max(lightness.shape))
    height, width = (max(1, round(side * scale)) for side in lightness.shape)
    small = lab.resize(lightness, (height, width))
    found = []
    for version in choose_candidates(fields, small, strength, edits):
        field = apply_candidate(fields, small, version)
        digest = version.edits.compute_digest(version.strength) if version.edits else ""
        mark = complete_metadata(Metadata(), width, height, model, digest)
        data = encode_pictures([convert_to_rgb(small, field)], "jpeg", QUALITY, mark)
        found.append(Candidate(version.name, version.strength, version.edits, data))
    return found
