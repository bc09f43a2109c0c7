"""The pictures of docs/how-to/colours.md, made with the default model from tests/photos.

    .venv/bin/python docs/site/pictures.py

Run it again when the weights change, and look at them.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from rehue_core import colorize, lab
from rehue_core.candidates import choose_candidates
from rehue_core.edits import NO_EDITS, WHOLE, Edits, Hint, apply_edits, format_palette
from rehue_core.lab import Float32, UInt8
from rehue_core.palette import extract_palette
from rehue_core.rgb import convert_to_rgb
from rehue_training.evaluation.colorizer import Colorizer, GrayBaseline
from rehue_training.evaluation.sheets import Row, make_sheet

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "tests" / "photos"
TARGET = ROOT / "docs" / "how-to"
QUALITY = 85

OFFICER = "mpl_grace_hopper.jpg"
UNIFORM = Edits(
    hints=(
        Hint(0.22, 0.88, "#2a3550"),
        Hint(0.78, 0.9, "#2a3550"),
        Hint(0.45, 0.35, "#c99a80"),
        Hint(0.5, 0.1, "#e8e4da"),
    )
)
MOUNTAINS = "lomiri_picosdeeuropa_by_Aitzol_Berasategi.jpg"
REFERENCE = "lomiri_aitzgorri_by_Aitzol_Berasategi.jpg"


class Photograph:
    """A photograph in gray, and the network's colours for it."""

    def __init__(self, model: Colorizer, name: str) -> None:
        self.truth = read_picture(name)
        self.lightness = lab.compute_lightness(self.truth)
        counts, box = colorize.prepare_input(self.lightness, model.spec)
        output = model.predict_ab(counts[None])[0]
        field = colorize.cut_out_box(output, box, model.spec)
        self.ab: Float32 = field.astype(np.float32) * np.float32(model.spec.ab_scale)

    def make_gray(self) -> UInt8:
        """Return it as it is without colours, HWC sRGB."""
        return GrayBaseline().colorize(self.lightness)

    def make_picture(self, edits: Edits = NO_EDITS, strength: float = 1.0) -> UInt8:
        """Return the picture with edits, HWC sRGB."""
        field = apply_edits(self.ab * np.float32(strength), self.lightness, edits)
        return convert_to_rgb(self.lightness, field)


def main() -> int:
    """Write the pictures."""
    model = Colorizer(ROOT / "model_repository", "rehue")
    officer, mountains = Photograph(model, OFFICER), Photograph(model, MOUNTAINS)
    write_sheet("colours-hints.jpg", {
        "photograph": officer.make_gray(),
        "automatic": officer.make_picture(),
        "with four hints": officer.make_picture(UNIFORM),
    })  # fmt: skip
    versions = choose_candidates({WHOLE: officer.ab}, officer.lightness, 1.0, NO_EDITS)
    write_sheet("colours-candidates.jpg", {
        version.name: officer.make_picture(version.edits, version.strength) for version in versions
    })  # fmt: skip
    reference = read_picture(REFERENCE)
    palette = format_palette(extract_palette(reference))
    write_sheet("colours-reference.jpg", {
        "photograph": mountains.make_gray(),
        "automatic": mountains.make_picture(),
        "reference": reference,
        "with its colours": mountains.make_picture(Edits(palette=palette, palette_strength=0.7)),
    })  # fmt: skip
    return 0


def read_picture(name: str) -> UInt8:
    """Return HWC sRGB."""
    return np.ascontiguousarray(cv2.imread(str(PHOTOS / name))[..., ::-1])


def write_sheet(name: str, pictures: dict[str, UInt8]) -> None:
    """Write pictures side by side, each under its title."""
    sheet = make_sheet(list(pictures), [Row("", list(pictures.values()))])
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    cv2.imwrite(str(TARGET / name), sheet[..., ::-1], options)


if __name__ == "__main__":
    sys.exit(main())
