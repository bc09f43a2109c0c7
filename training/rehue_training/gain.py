"""How strong the colours should be: measured on photographs kept off training.

A network that is unsure answers paler than the truth. One factor on its chroma
trades distance to the truth against colourfulness; it is chosen on the
validation photographs, written into the config as `gain`, and built into the
exported file. The test photographs have no say in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from rehue_serve import lab
from rehue_training import data, metrics
from rehue_training.colorizer import Colorizer, Gray
from rehue_training.config import Config

GAINS = (1.0, 1.15, 1.3, 1.45, 1.6)


@dataclass(frozen=True)
class Gained:
    """What one factor does, over the validation photographs."""

    gain: float
    below_gray: float  # share that CIEDE2000 lies below the gray pictures'
    better: float  # share of photographs that are better than gray
    colourfulness: float  # mean, over the truth's

    def __str__(self) -> str:
        return (
            f"gain {self.gain:.2f}: CIEDE2000 {self.below_gray:.1%} below gray, better than gray "
            f"on {self.better:.1%}, colourfulness {self.colourfulness:.3f} of the truth's"
        )


def measure(
    config: Config,
    paths: Sequence[Path],
    *,
    runs: Path,
    repository: Path,
    manifest: Path | None = None,
) -> list[Gained]:
    """Tries `GAINS` on top of the exported model's own."""
    photographs = data.photographs(paths, cache=runs / "cache", short_side=config.short_side)
    if config.classes:
        photographs = photographs.of_classes(config.classes, manifest)
    _, validation = photographs.split(config.validation, config.held_out)
    model = Colorizer(repository, config.served)
    rows = [_photograph(photographs[index], model) for index in track(validation, "measuring")]
    return [_gained(gain, np.array([row[gain] for row in rows])) for gain in GAINS]


def _photograph(truth: lab.UInt8, model: Colorizer) -> dict[float, tuple[float, ...]]:
    """CIEDE2000 of gray and of the guess, colourfulness of truth and guess, by gain."""
    lightness = lab.lightness(truth)
    gray = metrics.ciede2000(truth, Gray().picture(lightness))
    vivid = metrics.colourfulness(truth)
    pictures = {gain: model.picture(lightness, strength=gain) for gain in GAINS}
    return {
        gain: (gray, metrics.ciede2000(truth, guess), vivid, metrics.colourfulness(guess))
        for gain, guess in pictures.items()
    }


def _gained(gain: float, rows: metrics.Float64) -> Gained:
    gray, error, truth, vivid = rows.T
    return Gained(
        gain=gain,
        below_gray=float(1 - error.mean() / gray.mean()),
        better=float((error < gray).mean()),
        colourfulness=float(vivid.mean() / truth.mean()),
    )
