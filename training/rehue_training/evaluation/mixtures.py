"""Choice of the weights of an ensemble's members, on validation photographs.

The guided filter is linear in ab, so each member's answer to a photograph is computed and enlarged
once, and any mean of them costs next to nothing. `TextureGate`, which leaves photographs as they
are, is left out.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from rehue_core import colorize, lab
from rehue_core.lab import Float32, UInt8
from rehue_training.data import dataset
from rehue_training.data.files import read_files
from rehue_training.errors import InputError
from rehue_training.evaluation import metrics
from rehue_training.evaluation.colorizer import Colorizer, GrayBaseline
from rehue_training.learn import export
from rehue_training.learn.config import Config, Ensemble
from rehue_training.network.curve import Curve
from rehue_training.network.ensemble import TextureGate

SHORT_SIDE = 128  # pixels that photographs are scored at
NO_GATE = TextureGate(half=1e-6)

Weights = tuple[float, ...]  # one for each member


@dataclass(frozen=True)
class MixtureResult:
    """The scores of one mean, at one gain, over the photographs."""

    weights: Weights
    gain: float
    below_gray: float  # how far CIEDE2000 is below that of the gray pictures, as a share
    better: float  # share of the photographs that are better than gray
    colourfulness: float  # mean, over the truth's
    distance: float  # mean difference to the truth's colourfulness, absolute

    def __str__(self) -> str:
        return (
            f"{','.join(f'{weight:g}' for weight in self.weights)} gain {self.gain:.2f}: "
            f"{self.below_gray:.1%} below gray, better on {self.better:.1%}, "
            f"colourfulness {self.colourfulness:.3f}, its distance {self.distance:.1f}"
        )


def measure_mixtures(
    config: Ensemble,
    paths: Sequence[Path],
    *,
    split: Config,
    mixtures: Sequence[Weights],
    gains: Sequence[float],
    count: int,
    runs: Path,
    repository: Path,
) -> list[MixtureResult]:
    """Measure each mean of the members at each gain of the config's curve.

    Args:
        split: its validation photographs are used, `count` of them at most, evenly spaced.

    Raises:
        InputError: a mixture has not one weight for each member, or a member has no weights.
    """
    for weights in mixtures:
        if len(weights) != len(config.members) or not sum(weights) > 0:
            raise InputError(f"{weights}: needs a weight for each of {len(config.members)} members")
    members = _load_members(config, runs, repository)
    photographs = list(load_validation_photographs(paths, split, count))
    curves = [Curve(gain, config.pale, config.bend) for gain in gains]
    with ThreadPoolExecutor() as pool:
        scored = pool.map(lambda rgb: _score_mixtures(rgb, members, mixtures, curves), photographs)
        table = np.array(list(track(scored, "measuring", total=len(photographs))))
    pairs = [(weights, gain) for weights in mixtures for gain in gains]
    return [_summarize(*pair, table[:, number]) for number, pair in enumerate(pairs)]


def _load_members(config: Ensemble, runs: Path, repository: Path) -> list[Colorizer]:
    """Each member alone, without a curve or gate."""
    base = Colorizer(repository, config.served_name)
    members = []
    for member in config.members:
        single = config.model_copy(update={"members": (member,), "texture": NO_GATE})
        network = export.load_member(member, runs)
        proto = export.convert_ensemble(single, [network], export.NO_CURVE)
        members.append(base.with_network(proto, config.side))
    return members


def load_validation_photographs(
    paths: Sequence[Path], split: Config, count: int
) -> Iterator[UInt8]:
    """Yield photographs (HWC uint8) that the config keeps for validation.

    Names alone decide, so only those photographs are decoded. Held-out sources that these paths
    lack do not matter.
    """
    names = [name for name, _ in read_files(paths)]
    present = {dataset.parse_source(name) for name in names}
    held_out = [source for source in split.held_out if source in present]
    _, validation = dataset.split_names(names, split.validation, held_out)
    step = max(1, len(validation) // count)
    chosen = {names[index] for index in validation[::step][:count]}
    report = dataset.Report()
    for name, encoded in read_files(paths):
        if name in chosen:
            rgb = dataset.decode_usable(name, encoded, report)
            if rgb is not None:
                yield dataset.shrink(rgb, SHORT_SIDE)


def _score_mixtures(
    truth: UInt8,
    members: Sequence[Colorizer],
    mixtures: Sequence[Weights],
    curves: Sequence[Curve],
) -> list[tuple[float, ...]]:
    """CIEDE2000 of gray and guess, colourfulness of truth and guess: of each mean and curve."""
    lightness = lab.compute_lightness(truth)
    gray = metrics.compute_ciede2000(truth, GrayBaseline().colorize(lightness))
    vivid = metrics.compute_colorfulness(truth)
    counts, box = colorize.prepare_input(lightness, members[0].spec)
    answers = [member.predict_ab(counts[None])[0].astype(np.float32) for member in members]
    rows: list[tuple[float, ...]] = []
    for weights in mixtures:
        mean = np.moveaxis(np.average(answers, axis=0, weights=weights), 0, -1).astype(np.float32)
        for curve in curves:
            guess = _compose(lightness, curve(mean), box, members[0])
            error = metrics.compute_ciede2000(truth, guess)
            rows.append((gray, error, vivid, metrics.compute_colorfulness(guess)))
    return rows


def _compose(lightness: Float32, ab: Float32, box: colorize.Box, model: Colorizer) -> UInt8:
    return colorize.compose_rgb(lightness, np.moveaxis(ab, -1, 0), box, model.spec, 1.0)


def _summarize(weights: Weights, gain: float, rows: metrics.Float64) -> MixtureResult:
    gray, error, truth, vivid = rows.T
    return MixtureResult(
        weights=weights,
        gain=gain,
        below_gray=float(1 - error.mean() / gray.mean()),
        better=float((error < gray).mean()),
        colourfulness=float(vivid.mean() / truth.mean()),
        distance=float(np.abs(vivid - truth).mean()),
    )
