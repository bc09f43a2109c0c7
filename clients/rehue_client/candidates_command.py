"""The command `rehue candidates`."""

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rehue_client.checks import describe_error
from rehue_client.client import Client
from rehue_client.edit_options import add_edit_options, read_edits
from rehue_client.errors import RehueError
from rehue_client.picture import Candidate, get_suffix_format
from rehue_client.server_options import (
    add_server_options,
    check_ready,
    create_client,
    report_error,
)

if TYPE_CHECKING:
    import PIL.Image

MARGIN = 8  # pixels around the pictures of a sheet
LABEL = 20  # pixels of height for the names below them

EPILOG = """The file OUT is a sheet of all versions, with their names (this needs Pillow). In a
folder OUT each version is a JPEG, beside the edits that make it: to get it in full,

  rehue colorize PHOTO --edits OUT/warmer.json -o PHOTO-colour.jpg"""


def add_candidates_command(parser: argparse.ArgumentParser) -> None:
    """Add the options of `rehue candidates`."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("photo", type=Path, metavar="PHOTO", help="the photograph")
    add("-o", "--out", type=Path, required=True, metavar="OUT",
        help="a file such as sheet.png, or a folder")  # fmt: skip
    add_server_options(parser)
    add("--model", help="name of the model (default: the server's)")
    add("--size", type=int, default=512, metavar="64..2048",
        help="pixels on the long side of each version (default: 512)")  # fmt: skip
    add("--more-looks", action="store_true",
        help="versions of the other looks too: up to five more runs of the network")  # fmt: skip
    add_edit_options(parser)
    parser.set_defaults(run=run_candidates)


def run_candidates(namespace: argparse.Namespace) -> int:
    """Run `rehue candidates` and return its exit code."""
    try:
        edits, strength = read_edits(namespace)
        with create_client(Client, namespace) as client:
            check_ready(client, namespace)
            found = client.candidates(
                namespace.photo, model=namespace.model, strength=strength, edits=edits,
                size=namespace.size, more_looks=namespace.more_looks,
            )  # fmt: skip
        if get_suffix_format(namespace.out) is not None:
            namespace.out.parent.mkdir(parents=True, exist_ok=True)
            _draw_sheet(found).save(namespace.out)
        else:
            _save_versions(found, namespace.out)
    except RehueError as error:
        return report_error(describe_error(error))
    except (ValueError, OSError) as error:
        return report_error(error)
    except ImportError:
        return report_error("a sheet needs Pillow: pip install pillow, or name a folder")
    print(f"{namespace.out}: {', '.join(candidate.name for candidate in found)}")
    return 0


def _save_versions(found: Sequence[Candidate], folder: Path) -> None:
    """Write each version, and its edits."""
    folder.mkdir(parents=True, exist_ok=True)
    for candidate in found:
        stem = candidate.name.replace(" ", "-")
        (folder / f"{stem}.jpg").write_bytes(candidate.data)
        document = candidate.edits.to_document() | {"strength": candidate.strength}
        text = json.dumps(document, indent=1) + "\n"
        (folder / f"{stem}.json").write_text(text, encoding="utf-8")


def _draw_sheet(found: Sequence[Candidate]) -> "PIL.Image.Image":
    import PIL.Image
    import PIL.ImageDraw

    pictures = [PIL.Image.open(io.BytesIO(candidate.data)) for candidate in found]
    width, height = pictures[0].size
    across = width + MARGIN
    size = (across * len(found) + MARGIN, height + LABEL + 2 * MARGIN)
    sheet = PIL.Image.new("RGB", size, "white")
    draw = PIL.ImageDraw.Draw(sheet)
    for index, (candidate, picture) in enumerate(zip(found, pictures, strict=True)):
        sheet.paste(picture, (MARGIN + index * across, MARGIN))
        draw.text((MARGIN + index * across, height + 2 * MARGIN), candidate.name, fill="black")
    return sheet
