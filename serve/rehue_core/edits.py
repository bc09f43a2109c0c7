"""A person's choices of colour, and what they make of a network's ab field.

The order is fixed: look, strength, palette, warmth and tint, hints. So a hint has exactly its
colour, whatever else is chosen.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from rehue_core import lab
from rehue_core.balance import shift_balance
from rehue_core.hints import Seed, fit_fine_grid, spread_hints
from rehue_core.lab import Float32, Lightness
from rehue_core.palette import apply_palette
from rehue_core.rgb import convert_to_rgb

GRAY = "gray"
WHOLE, FARTHER, NEARER = LOOKS = ("whole", "farther", "nearer")  # the default first
MAX_HINTS = 100
MAX_PALETTE = 16
DIGITS = 6  # to which numbers are rounded, so that a proto's float and JSON's number agree
VERSION = 1  # of the document


@dataclass(frozen=True)
class Hint:
    """A hint as callers give it: a place, and ``#rrggbb`` or ``gray``."""

    x: float
    y: float
    color: str


@dataclass(frozen=True)
class Edits:
    """A person's choices for one photograph.

    Attributes:
        warmth: -1 (cooler) to 1 (warmer).
        tint: -1 (green) to 1 (magenta).
        hints: up to `MAX_HINTS`, in the order in which they were given.
        palette: up to `MAX_PALETTE` colours ``#rrggbb``.
        palette_strength: 0 to 1.
        look: how the network looks at the photograph, see `rehue_core.looks`.

    Raises:
        ValueError: a value is out of range; the message begins with its name.
    """

    warmth: float = 0.0
    tint: float = 0.0
    hints: tuple[Hint, ...] = ()
    palette: tuple[str, ...] = ()
    palette_strength: float = 1.0
    look: str = WHOLE

    def __post_init__(self) -> None:
        if self.look not in LOOKS:
            raise ValueError(f"look is {self.look[:20]!r}; it must be one of {', '.join(LOOKS)}.")
        for name, low in (("warmth", -1), ("tint", -1), ("palette_strength", 0)):
            value = getattr(self, name)
            if not low <= value <= 1:  # also refuses NaN
                raise ValueError(f"{name} is {value}; it must be from {low} to 1.")
            object.__setattr__(self, name, _round_value(value))
        _check_count("hints", "points", self.hints, MAX_HINTS)
        _check_count("palette", "colours", self.palette, MAX_PALETTE)
        hints = (_normalize_hint(index, hint) for index, hint in enumerate(self.hints))
        object.__setattr__(self, "hints", tuple(hints))
        object.__setattr__(self, "palette", tuple(map(_normalize_swatch, self.palette)))

    def __bool__(self) -> bool:
        """Whether anything is changed."""
        has_palette = self.palette and self.palette_strength
        is_whole = self.look == WHOLE
        return bool(self.warmth or self.tint or self.hints or has_palette or not is_whole)

    def compute_digest(self, strength: float) -> str:
        """Return the SHA-256 (hexadecimal) of the document with this strength."""
        document = self.to_document(strength)
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_document(self, strength: float) -> dict[str, Any]:
        """Return the document of docs/how-to/colours.md, without what is at its default."""
        document: dict[str, Any] = {"version": VERSION}
        numbers = {"strength": (strength, 1), "warmth": (self.warmth, 0), "tint": (self.tint, 0)}
        for name, (value, default) in numbers.items():
            if _round_value(value) != default:
                document[name] = _write_number(value)
        if self.hints:
            document["hints"] = [
                {"x": _write_number(hint.x), "y": _write_number(hint.y), "color": hint.color}
                for hint in self.hints
            ]
        if self.palette and self.palette_strength:
            document["palette"] = list(self.palette)
            if self.palette_strength != 1:
                document["palette_strength"] = _write_number(self.palette_strength)
        if self.look != WHOLE:
            document["look"] = self.look
        return document


def apply_edits(ab: Float32, lightness: Lightness, edits: Edits) -> Float32:
    """Return an ab field with the edits, of the same size, or finer where there are hints.

    Args:
        ab: hw2, Lab units, of the edits' look, strength applied.
        lightness: HW of the photograph; see `rehue_core.lab.Lightness`.
    """
    height, width = lightness.shape
    guide = _shrink_lightness(lightness, fit_fine_grid(height, width) if edits.hints else ab.shape)
    small = lab.resize(guide, ab.shape)
    if edits.palette and edits.palette_strength:
        colors = np.array([[_parse_hex(color) for color in edits.palette]], np.uint8)
        ab = apply_palette(ab, small, lab.convert_to_lab(colors)[0], edits.palette_strength)
    if edits.warmth or edits.tint:
        ab = shift_balance(ab, small, edits.warmth, edits.tint)
    if edits.hints:
        ab = spread_hints(
            ab, guide, [_convert_hint_to_seed(hint) for hint in edits.hints], (height, width)
        )
    return ab


def _shrink_lightness(lightness: Lightness, shape: tuple[int, ...]) -> Float32:
    """Resize a lightness as `lab.resize` does, by halves first: that takes half of the time."""
    while lightness.shape[0] >= 2 * shape[0] and lightness.shape[1] >= 2 * shape[1]:
        height, width = lightness.shape[0] // 2, lightness.shape[1] // 2
        even = lightness[: 2 * height, : 2 * width]  # what has no half is not seen in the result
        lightness = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)
    return lab.resize(lightness, shape)


def _convert_hint_to_seed(hint: Hint) -> Seed:
    if hint.color == GRAY:
        return Seed(hint.x, hint.y, 0.0, 0.0)
    _, a, b = lab.convert_to_lab(np.array(_parse_hex(hint.color), np.uint8)).tolist()
    return Seed(hint.x, hint.y, a, b)


def _check_count(name: str, noun: str, values: Any, limit: int) -> None:
    if len(values) > limit:
        raise ValueError(f"{name} has {len(values):,} {noun}; at most {limit} are allowed.")


def _normalize_hint(index: int, hint: Hint) -> Hint:
    for axis in ("x", "y"):
        value = getattr(hint, axis)
        if not 0 <= value <= 1:
            raise ValueError(f"hints[{index}].{axis} is {value}; it must be from 0 to 1.")
    color = hint.color.lower()
    if color != GRAY and not _is_hex(color):
        raise ValueError(
            f"hints[{index}].color is {hint.color[:20]!r}; it must be #rrggbb, such as "
            f"#7a1f2b, or {GRAY}."
        )
    return Hint(_round_value(hint.x), _round_value(hint.y), color)


def _normalize_swatch(color: str) -> str:
    if not _is_hex(color.lower()):
        raise ValueError(f"palette has {color[:20]!r}; each colour must be #rrggbb.")
    return color.lower()


def _is_hex(color: str) -> bool:
    digits = color[1:]
    return color[:1] == "#" and len(digits) == 6 and set(digits) <= set("0123456789abcdef")


def _parse_hex(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def format_palette(palette: Float32) -> tuple[str, ...]:
    """Return the colours of a palette (N3: L, a, b) as ``#rrggbb``."""
    rgb = convert_to_rgb(palette[None, :, 0], palette[None, :, 1:])[0]
    return tuple(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in rgb.tolist())


def _round_value(value: float) -> float:
    return round(float(value), DIGITS) + 0.0  # + 0.0: no minus zero


def _write_number(value: float) -> int | float:
    """Return a number as JavaScript writes it too: 1 and not 1.0."""
    rounded = _round_value(value)
    return int(rounded) if rounded.is_integer() else rounded


NO_EDITS = Edits()
