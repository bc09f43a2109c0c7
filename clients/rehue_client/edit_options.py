"""The options of a person's choices of colour."""

import argparse
from collections.abc import Callable
from pathlib import Path

from rehue_client.choices import LOOKS
from rehue_client.edits import Edits, Hint, read_hints, read_json

GIVEN = ("warmth", "tint", "palette_strength", "look")  # options that override the file's value


def add_edit_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `Edits`, and the strength."""
    add = parser.add_argument_group("colours").add_argument
    add("--strength", type=parse_number(0, 2), metavar="0..2",
        help="strength of the colours (default: 1)")  # fmt: skip
    add("--warmth", type=parse_number(-1, 1), metavar="-1..1", help="cooler or warmer")
    add("--tint", type=parse_number(-1, 1), metavar="-1..1", help="green or magenta")
    add("--hint", type=_parse_hint, action="append", default=[], metavar="X,Y=COLOR",
        help="a colour for one place, such as 0.4,0.6=#7a1f2b or 0.5,0.1=gray; X and Y are "
        "fractions of width and height; may be repeated")  # fmt: skip
    add("--hints", type=Path, metavar="FILE", help="a JSON list of hints")
    add("--palette", type=_parse_palette, default=(), metavar="COLOR,COLOR",
        help="colours to use where they fit, such as #7a1f2b,#2b3fa0")  # fmt: skip
    add(
        "--reference",
        type=Path,
        metavar="FILE",
        help="a picture whose main colours become the palette",
    )
    add("--palette-strength", type=parse_number(0, 1), metavar="0..1",
        help="how strongly the palette is used (default: 1)")  # fmt: skip
    add("--look", choices=LOOKS.values(),
        help="how the network gets the photograph: farther: smaller; nearer: in overlapping "
        "parts, with two to four runs (default: whole)")  # fmt: skip
    add("--edits", type=Path, metavar="FILE",
        help="edits saved by the page; the options above override them")  # fmt: skip


def read_edits(namespace: argparse.Namespace) -> tuple[Edits, float]:
    """Return the edits of the options and the strength.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file does not hold what it should.
    """
    document = read_json(namespace.edits) if namespace.edits else {"version": 1}
    edits = Edits.from_document(document)
    listed = read_hints(read_json(namespace.hints)) if namespace.hints else ()
    given = {name: getattr(namespace, name) for name in GIVEN}
    values = vars(edits) | {name: value for name, value in given.items() if value is not None}
    values["hints"] = (*edits.hints, *listed, *namespace.hint)
    values["palette"] = namespace.palette or edits.palette
    if namespace.reference is not None:
        values["reference"] = namespace.reference.read_bytes()
    strength = document.get("strength", 1.0) if namespace.strength is None else namespace.strength
    return Edits(**values), strength


def parse_number(low: float, high: float) -> Callable[[str], float]:
    """Return a parser of numbers in a range."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")
        return value

    return parse


def _parse_hint(text: str) -> Hint:
    try:
        return Hint.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parse_palette(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))
