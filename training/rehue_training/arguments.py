"""Arguments that several subcommands take."""

from pathlib import Path
from typing import Any

REPOSITORY = Path("model_repository")
RUNS = Path("runs")
RESULTS = Path("results")


def add_data(parser: Any) -> None:
    """Add `--data`: where the photographs are."""
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, metavar="PATH",
        help="tars, folder trees, or Kaggle's Image Colorization Dataset",
    )  # fmt: skip


def add_manifest(parser: Any) -> None:
    """Add `--manifest`."""
    parser.add_argument(
        "--manifest",
        type=Path,
        help="table of the photographs' licence classes, for configs with `classes`",
    )
