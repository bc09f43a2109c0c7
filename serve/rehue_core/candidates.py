"""Versions of one photograph to choose from: one answer of the network, several edits of it.

Most of a colorizer's error is in the cast and the strength of the whole picture, which its gray
version does not tell (colours and weather of the light, film, print). So the candidates differ in
those; the values are chosen on photographs kept off training.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from rehue_core.edits import Edits, apply_edits
from rehue_core.lab import Float32, Lightness

WARMTH_STEP = 0.35
PALER = 0.5  # factor of the strength
VIVID_GAIN = 6.0  # ab that the vivid version adds on average, within MORE_VIVID
MORE_VIVID = (1.3, 2.0)  # factor of the strength
MAX_STRENGTH = 2.0
# Mean distance in ab from every other candidate. About 2 is just visible on plain surfaces.
VISIBLE = 2.0


@dataclass(frozen=True)
class Candidate:
    """One version: its name, and the choices that make it."""

    name: str
    strength: float
    edits: Edits


def choose_candidates(
    ab: Float32, lightness: Lightness, strength: float, edits: Edits
) -> list[Candidate]:
    """Choose versions that differ visibly; the first is the one asked for.

    Args:
        ab: hw2, Lab units: the network's answer.
        lightness: HW of the photograph; see `rehue_core.lab.Lightness`.
        strength: of the chroma, 0 to 2, as asked for.
        edits: as asked for.
    """
    chosen: list[Candidate] = []
    fields: list[Float32] = []
    # Hints are left out of the comparison: they are the same in all.
    for candidate in _propose(ab, strength, edits):
        plain = replace(candidate.edits, hints=())
        field = apply_edits(ab * np.float32(candidate.strength), lightness, plain)
        if all(_measure_distance(field, other) >= VISIBLE for other in fields):
            chosen.append(candidate)
            fields.append(field)
    return chosen


def _propose(ab: Float32, strength: float, edits: Edits) -> Iterator[Candidate]:
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


def _measure_distance(ab: Float32, other: Float32) -> float:
    return float(np.linalg.norm(ab - other, axis=-1).mean())
