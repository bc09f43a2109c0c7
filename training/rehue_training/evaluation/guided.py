"""What a person's choices bring: clicks, a reference, the best of several candidates.

A person who knows the true colours is simulated. Clicks are put, one after another, where the
picture so far is farthest from the truth, as in "Real-Time User-Guided Image Colorization with
Learned Deep Priors" (Zhang et al., 2017); each has the truth's own colour there. The reference is
the photograph itself in colour, reduced to its palette: an upper bound. Of the candidates the one
nearest to the truth is chosen, among the first three and among all.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.progress import track
from skimage.color import deltaE_ciede2000

from rehue_core import colorize, lab
from rehue_core.candidates import choose_candidates
from rehue_core.edits import WHOLE, Edits, Hint, apply_edits, format_palette
from rehue_core.lab import Float32, UInt8
from rehue_core.palette import extract_palette
from rehue_core.rgb import convert_to_rgb
from rehue_training.errors import InputError
from rehue_training.evaluation.colorizer import Colorizer
from rehue_training.evaluation.evaluate import load_photographs

SCORED_AT = 64  # pixels on the short side: a person judges regions, and the search is quick
PLACE_SPREAD = 3.0  # pixels at that size: the worst place is a region, not a pixel
FEW_CANDIDATES = 3


@dataclass(frozen=True)
class Choices:
    """Which choices are measured: numbers of clicks, a reference, candidates."""

    clicks: tuple[int, ...] = ()
    reference: bool = False
    candidates: bool = False


@dataclass(frozen=True)
class Scene:
    """A photograph: its truth, and a network's answer."""

    truth: Float32  # Lab, hw3, `SCORED_AT` on the short side
    lightness: Float32  # HW, 0..100
    ab: Float32  # hw2, Lab units

    def measure(self, edits: Edits, strength: float = 1.0) -> Float32:
        """Return CIEDE2000 to the truth (hw)."""
        return self.compare(apply_edits(self.ab * np.float32(strength), self.lightness, edits))

    def compare(self, ab: Float32) -> Float32:
        """Return CIEDE2000 of an ab field to the truth, with the truth's lightness (hw)."""
        guess = np.dstack([self.truth[..., 0], lab.resize(ab, self.truth.shape)])
        return np.asarray(deltaE_ciede2000(self.truth, guess), np.float32)


def evaluate_choices(
    paths: Sequence[Path],
    *,
    repository: Path,
    models: Sequence[str],
    choices: Choices,
    out: Path,
) -> dict[str, Any]:
    """Measure the choices with each model; write JSON and Markdown to `out`.

    Returns:
        The content of the JSON file: mean CIEDE2000 by model and by choice, and of gray.

    Raises:
        InputError: there are no colour photographs under `paths`, or a model is missing.
    """
    colorizers = [Colorizer(repository, name) for name in models]
    photographs = [truth for _, truth in load_photographs(paths)]
    if not photographs:
        raise InputError(f"no colour photographs under {', '.join(map(str, paths))}")
    result: dict[str, Any] = {"photographs": len(photographs), "scored_at": SCORED_AT}
    with ThreadPoolExecutor() as pool:
        for colorizer in colorizers:

            def score(truth: UInt8, colorizer: Colorizer = colorizer) -> dict[str, float]:
                return score_scene(make_scene(truth, colorizer), choices)

            rows = list(track(pool.map(score, photographs), colorizer.name, len(photographs)))
            means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
            result["gray"] = means.pop("gray")
            result.setdefault("models", {})[colorizer.name] = means
    out.mkdir(parents=True, exist_ok=True)
    (out / "choices.json").write_text(json.dumps(result, indent=1))
    (out / "choices.md").write_text(format_choices(result))
    return result


def make_scene(truth: UInt8, colorizer: Colorizer) -> Scene:
    """Colorize a photograph (HW3 sRGB) as the server does, up to the ab field."""
    lightness = lab.compute_lightness(truth)
    counts, box = colorize.prepare_input(lightness, colorizer.spec)
    output = colorizer.predict_ab(counts[None])[0]
    ab = colorize.cut_out_box(output, box, colorizer.spec).astype(np.float32)
    small = lab.convert_to_lab(truth)
    scale = SCORED_AT / min(truth.shape[:2])
    size = (round(truth.shape[1] * scale), round(truth.shape[0] * scale))
    return Scene(
        np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_AREA), np.float32),
        lightness,
        ab * np.float32(colorizer.spec.ab_scale),
    )


def score_scene(scene: Scene, choices: Choices) -> dict[str, float]:
    """Return mean CIEDE2000 by choice, of gray and of the automatic answer."""
    scores = {
        "gray": float(scene.compare(np.zeros_like(scene.ab)).mean()),
        "automatic": float(scene.measure(Edits()).mean()),
    }
    if choices.clicks:
        scores |= _score_clicks(scene, choices.clicks)
    if choices.reference:
        scores["reference"] = float(scene.measure(_make_reference(scene)).mean())
    if choices.candidates:
        scores |= _score_candidates(scene)
    return scores


def _score_clicks(scene: Scene, counts: Sequence[int]) -> dict[str, float]:
    scores: dict[str, float] = {}
    hints: tuple[Hint, ...] = ()
    for count in range(max(counts) + 1):
        error = scene.measure(Edits(hints=hints))
        if count in counts:
            scores[f"clicks {count}"] = float(error.mean())
        hints = (*hints, _click_worst_place(scene.truth, error, hints))
    return scores


def _click_worst_place(truth: Float32, error: Float32, hints: Sequence[Hint]) -> Hint:
    height, width = error.shape
    blurred = cv2.GaussianBlur(error, (0, 0), PLACE_SPREAD)
    for hint in hints:  # not twice at one place
        center = (int(hint.x * width), int(hint.y * height))
        cv2.circle(blurred, center, round(2 * PLACE_SPREAD), 0, -1)
    y, x = np.unravel_index(blurred.argmax(), blurred.shape)
    patch = truth[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].reshape(-1, 3)
    (color,) = format_palette(patch.mean(axis=0, keepdims=True))
    return Hint((float(x) + 0.5) / width, (float(y) + 0.5) / height, color)


def _make_reference(scene: Scene) -> Edits:
    truth = scene.truth
    picture = convert_to_rgb(
        np.ascontiguousarray(truth[..., 0]), np.ascontiguousarray(truth[..., 1:])
    )
    return Edits(palette=format_palette(extract_palette(picture)))


def _score_candidates(scene: Scene) -> dict[str, float]:
    found = choose_candidates({WHOLE: scene.ab}, scene.lightness, 1.0, Edits())
    errors = [float(scene.measure(c.edits, c.strength).mean()) for c in found]
    return {
        f"best of {FEW_CANDIDATES} candidates": min(errors[:FEW_CANDIDATES]),
        "best of all candidates": min(errors),
    }


def format_choices(result: dict[str, Any]) -> str:
    """Format the content of the JSON file as a table."""
    models, gray = result["models"], result["gray"]
    heading = (
        f"{result['photographs']} photographs, scored at {result['scored_at']} pixels on the "
        f"short side; CIEDE2000, and how far below gray ({gray:.2f})."
    )
    lines = [
        heading,
        "",
        "| Choice | " + " | ".join(models) + " |",
        "| --- |" + " --- |" * len(models),
    ]
    for choice in next(iter(models.values())):
        means = [model[choice] for model in models.values()]
        cells = [f"{mean:.2f}, {1 - mean / gray:.1%}" for mean in means]
        lines.append(f"| {choice} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
