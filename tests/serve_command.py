"""Runs the command `rehue serve` until it ends."""

import os
import subprocess
import sys
from pathlib import Path

REHUE = Path(sys.executable).with_name("rehue")


def run_serve(**settings: str) -> subprocess.CompletedProcess[str]:
    """Run `rehue serve` with settings, by their names without ``REHUE_``, and return its output."""
    environment = os.environ | {f"REHUE_{name.upper()}": value for name, value in settings.items()}
    return subprocess.run(
        [REHUE, "serve"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
