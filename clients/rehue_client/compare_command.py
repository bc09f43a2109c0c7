"""The command `rehue compare`: a photograph beside its picture."""

import argparse
from pathlib import Path

from rehue_client.server_options import report_error

GAP = 0.01  # of the width of both, between them


def add_compare_command(parser: argparse.ArgumentParser) -> None:
    """Add the options of `rehue compare`."""
    parser.add_argument("before", type=Path, metavar="PHOTOGRAPH")
    parser.add_argument("after", type=Path, metavar="PICTURE", help="the photograph in colour")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, help="image file; its suffix decides the format"
    )
    parser.add_argument(
        "--height",
        type=int,
        metavar="PIXELS",
        help="height of both (default: that of the smaller one)",
    )
    parser.set_defaults(run=run_compare)


def run_compare(namespace: argparse.Namespace) -> int:
    """Write both images beside each other; return the exit code."""
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError:
        return report_error("`rehue compare` needs Pillow: pip install pillow")
    try:
        sides = [
            ImageOps.exif_transpose(Image.open(path)).convert("RGB")
            for path in (namespace.before, namespace.after)
        ]
        height = namespace.height
        if height is None:
            height = min(side.height for side in sides)
        if not 1 <= height <= 10_000:
            return report_error("--height takes 1 to 10000 pixels")
        sizes = [(max(1, round(side.width * height / side.height)), height) for side in sides]
        before, after = (
            side.resize(size, Image.Resampling.LANCZOS)
            for side, size in zip(sides, sizes, strict=True)
        )
        gap = max(2, round(GAP * (before.width + after.width)))
        joined = Image.new("RGB", (before.width + gap + after.width, height), "white")
        joined.paste(before, (0, 0))
        joined.paste(after, (before.width + gap, 0))
        joined.save(namespace.out)
    except (OSError, ValueError) as error:
        return report_error(error)
    return 0
