"""Parameters of HTTP requests, in the query or as fields of a form."""

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rehue_core.edits import MAX_HINTS, Edits, Hint
from rehue_serve.bodies import REFERENCE_FIELD
from rehue_serve.choices import DEFAULT_QUALITY, DEFAULT_SIZE, LARGEST, SMALLEST, Parameters
from rehue_serve.errors import InvalidParameter

LONGEST_NAME = 100  # characters of an unknown name that an error repeats
EDIT_FIELDS = ("warmth", "tint", "hints", "palette", "palette_strength", "look")
MOST_ERRORS = 5  # that one answer names


class EditParameters(BaseModel):
    """The parameters of colours, which all routes that colorize have."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field("", description="Name of the model; empty: the default.")
    strength: float = Field(1.0, ge=0, le=2, description="Scales chroma.")
    warmth: float = Field(0.0, ge=-1, le=1, description="-1 (cooler) to 1 (warmer).")
    tint: float = Field(0.0, ge=-1, le=1, description="-1 (green) to 1 (magenta).")
    hints: str = Field(
        "",
        description="Colours for points of the photograph, a JSON list of up to 100 such as "
        '[{"x": 0.4, "y": 0.6, "color": "#7a1f2b"}]: x and y from 0 to 1 of the upright '
        'photograph, color #rrggbb or "gray". For photographs of one page.',
    )
    palette: str = Field(
        "",
        description="Up to 16 colours #rrggbb, separated by commas, used where they fit.",
    )
    palette_strength: float = Field(
        1.0, ge=0, le=1, description="How strongly the palette is used."
    )
    look: Literal["whole", "farther", "nearer"] = Field(
        "whole",
        description="Size of the photograph in the network's input. farther: smaller; nearer: in "
        "overlapping parts, with two to four runs of the network.",
    )

    def add_fields(self, fields: Mapping[str, str]) -> Self:
        """Return these parameters with those of a form.

        Raises:
            InvalidParameter: a field is unknown, invalid, or a parameter of the query too.
        """
        given = self.model_dump(exclude_unset=True)
        for name in given.keys() & fields.keys():
            raise InvalidParameter(f"{name} is given twice, in the query and in the form.")
        if REFERENCE_FIELD in fields:
            raise InvalidParameter(f"{REFERENCE_FIELD} is text; send a picture, as a file.")
        try:
            return type(self).model_validate(given | dict(fields))
        except ValidationError as error:
            raise InvalidParameter(describe_errors(error.errors())) from None

    def build_parameters(self, reference: bytes = b"") -> Parameters:
        """Build the caller's choices.

        Args:
            reference: an encoded picture, or nothing.

        Raises:
            InvalidParameter, UnknownModel: a value is out of range.
        """
        values = self.model_dump()
        colors = {name: values.pop(name) for name in EDIT_FIELDS}
        colors["hints"] = parse_hints(self.hints)
        colors["palette"] = tuple(self.palette.split(",")) if self.palette else ()
        return Parameters(**values, edits=build_edits(**colors), reference=reference)


class ColorizeParameters(EditParameters):
    """The parameters of ``/v1/colorize``."""

    format: Literal["auto", "jpeg", "png", "webp", "tiff"] = Field(
        "auto", description="auto: the input's format."
    )
    quality: int = Field(DEFAULT_QUALITY, ge=1, le=100, description="Quality of JPEG and WebP.")
    metadata: Literal["keep", "none"] = Field(
        "keep", description="keep or none: EXIF, IPTC, XMP, captions."
    )
    depth: Literal["auto", "8"] = Field(
        "auto",
        description="Bits of a sample. auto: 16 where the photograph has more than 8 and the "
        "format can hold them; 8: never more.",
    )
    profile: Literal["srgb", "keep"] = Field(
        "srgb",
        description="Colour space. keep: the photograph's own profile, if it is one of RGB.",
    )
    mark: Literal["none", "visible"] = Field(
        "none", description="visible: a small mark in the lower right corner."
    )


class CandidatesParameters(EditParameters):
    """The parameters of ``/v1/candidates``."""

    size: int = Field(
        DEFAULT_SIZE, ge=SMALLEST, le=LARGEST,
        description="Pixels on the long side of each version.",
    )  # fmt: skip
    more_looks: bool = Field(
        False,
        description="Propose versions of the other looks too, which are up to five more runs of "
        "the network.",
    )


def build_edits(**values: Any) -> Edits:
    """Build edits.

    Raises:
        InvalidParameter: a value is out of range; the message begins with its name.
    """
    try:
        return Edits(**values)
    except ValueError as error:
        raise InvalidParameter(str(error)) from None


def parse_hints(text: str) -> tuple[Hint, ...]:
    """Parse a JSON list of hints; their ranges are checked by `Edits`.

    Raises:
        InvalidParameter: it is none.
    """
    if not text:
        return ()
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidParameter("hints is not JSON; it must be a list of points.") from None
    if not isinstance(listed, list):
        raise InvalidParameter("hints is not a list; it must be a JSON list of points.")
    if len(listed) > MAX_HINTS:
        raise InvalidParameter(
            f"hints has {len(listed):,} points; at most {MAX_HINTS} are allowed."
        )
    return tuple(_parse_hint(index, point) for index, point in enumerate(listed))


def _parse_hint(index: int, point: Any) -> Hint:
    keys = {"x", "y", "color"}
    if not isinstance(point, dict) or set(point) != keys:
        raise InvalidParameter(f"hints[{index}] must be an object with x, y and color alone.")
    for axis in ("x", "y"):
        if isinstance(point[axis], bool) or not isinstance(point[axis], int | float):
            raise InvalidParameter(f"hints[{index}].{axis} must be a number from 0 to 1.")
    if not isinstance(point["color"], str):
        raise InvalidParameter(f"hints[{index}].color must be a string: #rrggbb or gray.")
    return Hint(point["x"], point["y"], point["color"])


def describe_errors(errors: Sequence[Any]) -> str:
    """Describe pydantic's errors in a sentence; for an unknown name, say the nearest known one."""
    return "; ".join(map(_describe_error, errors[:MOST_ERRORS]))


def _describe_error(error: Mapping[str, Any]) -> str:
    name = str(error["loc"][-1])[:LONGEST_NAME]
    if error["type"] != "extra_forbidden":
        return f"{name}: {error['msg']}"
    known = list(ColorizeParameters.model_fields | CandidatesParameters.model_fields)
    nearest = difflib.get_close_matches(name.lower(), known, n=1)
    suggestion = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(known)}."
    return f"{name} is not a parameter; {suggestion}"
