"""Folders of the repository that tests read."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT / "tests" / "photos"
MODELS = ROOT / "model_repository"
