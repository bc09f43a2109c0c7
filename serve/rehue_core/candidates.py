"""Versions of one photograph to choose from: edits of the network's answer, and other looks.

Most of a colorizer's error is in the cast and the strength of the whole picture, which its gray
version does not tell (colours and weather of the light, film, print). So the candidates differ in
those; the values are chosen on photographs kept off training.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from rehue_core.edits import FARTHER, NEARER, WHOLE, Edits, apply_edits
from rehue_core.lab import Float32, Lightness, resize

WARMTH_STEP = 0.35
PALER = 0.5  # factor of the strength
VIVID_GAIN = 6.0  # ab that the vivid version adds on average, within MORE_VIVID
MORE_VIVID = (1.3, 2.0)  # factor of the strength
MAX_STRENGTH = 2.0
# Mean distance in ab from every other candidate. About 2 is just visible on plain surfaces.
VISIBLE = 2.0
NAMES = {WHOLE: "as a whole", FARTHER: "from farther", NEARER: "from nearer"}


@dataclass(frozen=True)
class Candidate:
    """One version: its name, and the choices that make it."""

    name: str
    strength: float
    edits: Edits


def choose_candidates(
    fields: Mapping[str, Float32], lightness: Lightness, strength: float, edits: Edits
) -> list[Candidate]:
    """Choose versions that differ visibly; the first is the one asked for.

    Args:
        fields: the network's answers by look, hw2, Lab units: of the edits' look, and of others
            that are proposed too.
        lightness: HW of the photograph; see `rehue_core.lab.Lightness`.
        strength: of the chroma, 0 to 2, as asked for.
        edits: as asked for.
    """
    chosen: list[Candidate] = []
    seen: list[Float32] = []
    for candidate in _propose_candidates(fields, strength, edits):
        # Hints are left out of the comparison: they are the same in all.
        plain = replace(candidate, edits=replace(candidate.edits, hints=()))
        field = apply_candidate(fields, lightness, plain)
        if all(_measure_distance(field, other) >= VISIBLE for other in seen):
            chosen.append(candidate)
            seen.append(field)
    return chosen


def apply_candidate(
    fields: Mapping[str, Float32], lightness: Lightness, candidate: Candidate
) -> Float32:
    """Return the ab field of a version; see `choose_candidates`."""
    ab = fields[candidate.edits.look] * np.float32(candidate.strength)
    return apply_edits(ab, lightness, candidate.edits)


def _propose_candidates(
    fields: Mapping[str, Float32], strength: float, edits: Edits
) -> Iterator[Candidate]:
    ab = fields[edits.look]
    chroma = float(np.linalg.norm(ab, axis=-1).mean()) * strength
    vivid = float(np.clip(1 + VIVID_GAIN / max(chroma, 1e-6), *MORE_VIVID))
    warmer, cooler = (
        replace(edits, warmth=float(np.clip(edits.warmth + step, -1, 1)))
        for step in (WARMTH_STEP, -WARMTH_STEP)
    )
    yield Candidate("as is", strength, edits)
    yield Candidate("warmer", strength, warmer)
    yield Candidate("cooler", strength, cooler)
    yield Candidate("paler", round(strength * PALER, 2), edits)
    yield Candidate("more vivid", round(min(strength * vivid, MAX_STRENGTH), 2), edits)
    for look in (look for look in fields if look != edits.look):
        yield Candidate(NAMES[look], strength, replace(edits, look=look))


def _measure_distance(ab: Float32, other: Float32) -> float:
    return float(np.linalg.norm(resize(ab, other.shape) - other, axis=-1).mean())
