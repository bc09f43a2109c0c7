"""A person's choices of colour, and the JSON document that keeps them."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from rehue_client.choices import LOOKS
from rehue_client.sources import Source, read_source

VERSION = 1  # of the document
NUMBERS = ("warmth", "tint", "palette_strength")


@dataclass(frozen=True)
class Hint:
    """A colour for one place, and for what belongs to it.

    Attributes:
        x: 0 (left) to 1 (right) of the upright photograph.
        y: 0 (top) to 1 (bottom).
        color: ``#rrggbb``, or ``gray``.
    """

    x: float
    y: float
    color: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``0.4,0.6=#7a1f2b``.

        Raises:
            ValueError: the text is no hint.
        """
        place, _, color = text.partition("=")
        try:
            x, y = map(float, place.split(","))
        except ValueError:
            raise ValueError(f"{text!r} is not a hint such as 0.4,0.6=#7a1f2b") from None
        return cls(x, y, color)


@dataclass(frozen=True, kw_only=True)
class Edits:
    """A person's choices of colour for a photograph. The server checks the ranges.

    Attributes:
        warmth: -1 (cooler) to 1 (warmer).
        tint: -1 (green) to 1 (magenta).
        hints: up to 100, for photographs of one page.
        palette: up to 16 colours ``#rrggbb`` that are used where they fit.
        reference: a picture whose main colours are the palette; given as a photograph is.
        palette_strength: 0 to 1, how strongly palette or reference are used.
        look: how the network looks at the photograph: ``whole``; ``farther``, smaller; or
            ``nearer``, in overlapping parts, with two to four runs of the network.

    Raises:
        ValueError: ``look`` is none of these.
    """

    warmth: float = 0.0
    tint: float = 0.0
    hints: tuple[Hint, ...] = ()
    palette: tuple[str, ...] = ()
    reference: Source | None = None
    palette_strength: float = 1.0
    look: str = LOOKS[0]

    def __post_init__(self) -> None:
        if self.look not in LOOKS.values():
            raise ValueError(f"look {self.look!r} is not one of {', '.join(LOOKS.values())}")

    def __bool__(self) -> bool:
        """Whether anything is asked for."""
        return self != Edits(palette_strength=self.palette_strength)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read a document of docs/how-to/colours.md; its ``strength`` is left out.

        Raises:
            ValueError: it is none, or of a newer version.
        """
        known = {"version", "strength", "hints", "palette", "look", *NUMBERS}
        if not isinstance(document, Mapping) or document.get("version") != VERSION:
            raise ValueError(f"these are not edits of version {VERSION}")
        if unknown := set(document) - known:
            raise ValueError(f"edits do not have {', '.join(sorted(unknown))}")
        numbers = {name: document[name] for name in NUMBERS if name in document}
        palette = tuple(map(str, document.get("palette", ())))
        hints, look = read_hints(document.get("hints", ())), document.get("look", LOOKS[0])
        return cls(hints=hints, palette=palette, look=look, **numbers)

    def to_document(self) -> dict[str, Any]:
        """Return the document. The reference is left out: it is a file of its own."""
        default = Edits()
        document: dict[str, Any] = {"version": VERSION}
        for name in NUMBERS:
            if getattr(self, name) != getattr(default, name):
                document[name] = getattr(self, name)
        if self.hints:
            document["hints"] = [vars(hint) for hint in self.hints]
        if self.palette:
            document["palette"] = list(self.palette)
        if self.look != default.look:
            document["look"] = self.look
        return document

    def to_parameters(self) -> dict[str, str]:
        """Return the parameters of the HTTP API; the reference is left out: it is a file."""
        parameters: dict[str, str] = {}
        if self:
            parameters |= {name: repr(float(getattr(self, name))) for name in NUMBERS}
        if self.hints:
            parameters["hints"] = json.dumps([vars(hint) for hint in self.hints])
        if self.palette:
            parameters["palette"] = ",".join(self.palette)
        if self.look != LOOKS[0]:
            parameters["look"] = self.look
        return parameters

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file that holds a document.

        Raises:
            OSError: it cannot be read.
            ValueError: see `from_document`.
        """
        return cls.from_document(read_json(Path(path)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the document into a file."""
        Path(path).write_text(json.dumps(self.to_document(), indent=1) + "\n", encoding="utf-8")


NO_EDITS = Edits()


def read_hints(points: Iterable[Any]) -> tuple[Hint, ...]:
    """Read a list of objects with x, y and color.

    Raises:
        ValueError: it is none.
    """
    try:
        return tuple(Hint(float(p["x"]), float(p["y"]), str(p["color"])) for p in points)
    except (TypeError, LookupError, ValueError):
        raise ValueError("hints must be a list of objects with x, y and color") from None


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def read_reference(edits: Edits | None, max_bytes: int) -> Edits:
    """Return edits whose reference picture, if there is one, is read into memory.

    Raises:
        SourceError, ImageTooLarge, TypeError: see `rehue_client.sources.read_source`.
    """
    edits = edits or NO_EDITS
    if edits.reference is None:
        return edits
    return replace(edits, reference=read_source(edits.reference, max_bytes))
