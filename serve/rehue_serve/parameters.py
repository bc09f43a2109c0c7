"""Parameters of HTTP requests, in the query or as fields of a form."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rehue_serve.errors import InvalidParameter
from rehue_serve.pipeline import DEFAULT_QUALITY, Parameters

LONGEST_NAME = 100  # characters of an unknown name that an error repeats
MOST_ERRORS = 5  # that one answer names


class ColorizeParameters(BaseModel):
    """The parameters of ``/v1/colorize``."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field("", description="Name of the model; empty: the default.")
    strength: float = Field(1.0, ge=0, le=2, description="Scales chroma.")
    format: Literal["auto", "jpeg", "png", "webp", "tiff"] = Field(
        "auto", description="auto: the input's format."
    )
    quality: int = Field(DEFAULT_QUALITY, ge=1, le=100, description="Quality of JPEG and WebP.")
    metadata: Literal["keep", "none"] = Field(
        "keep", description="keep or none: EXIF, IPTC, XMP, captions."
    )

    def add_fields(self, fields: Mapping[str, str]) -> "ColorizeParameters":
        """Return these parameters with those of a form.

        Raises:
            InvalidParameter: a field is unknown, invalid, or a parameter of the query too.
        """
        given = self.model_dump(exclude_unset=True)
        for name in given.keys() & fields.keys():
            raise InvalidParameter(f"{name} is given twice, in the query and in the form.")
        try:
            return type(self).model_validate(given | dict(fields))
        except ValidationError as error:
            raise InvalidParameter(describe_errors(error.errors())) from None

    def build_parameters(self) -> Parameters:
        return Parameters(**self.model_dump())


def describe_errors(errors: Sequence[Any]) -> str:
    """Describe pydantic's errors in a sentence; for an unknown name, say the nearest known one."""
    return "; ".join(map(_describe_error, errors[:MOST_ERRORS]))


def _describe_error(error: Mapping[str, Any]) -> str:
    name = str(error["loc"][-1])[:LONGEST_NAME]
    if error["type"] != "extra_forbidden":
        return f"{name}: {error['msg']}"
    known = list(ColorizeParameters.model_fields)
    nearest = difflib.get_close_matches(name.lower(), known, n=1)
    suggestion = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(known)}."
    return f"{name} is not a parameter; {suggestion}"
