"""The subcommand `rehue pack`."""

import argparse
from pathlib import Path
from typing import Any

from rehue_training.arguments import RUNS, add_data
from rehue_training.errors import print_errors


def add_commands(subparsers: Any) -> None:
    """Add `pack`."""
    parser = subparsers.add_parser(
        "pack", help="shrink photographs and pack them, to train on another machine"
    )
    add_data(parser)
    parser.add_argument("--out", type=Path, default=RUNS / "packed", help="folder of the tars")
    parser.add_argument("--pieces", type=int, default=16, help="number of tars (default: 16)")
    parser.add_argument(
        "--short-side",
        type=int,
        default=200,
        help="short side of the packed photographs in pixels (default: 200)",
    )
    parser.add_argument(
        "--quality", type=int, default=80, help="quality of WebP, 1 to 100 (default: 80)"
    )
    parser.set_defaults(run=_pack)


@print_errors
def _pack(arguments: argparse.Namespace) -> int:
    from rehue_training.data import pack

    tars, report = pack.pack_photographs(
        arguments.data,
        arguments.out,
        pieces=arguments.pieces,
        short_side=arguments.short_side,
        quality=arguments.quality,
    )
    print(report)
    for path in tars:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0
