"""Archives of small photographs, and `rehue batch` in a process of its own."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import psutil

REHUE = Path(sys.executable).with_name("rehue")


def write_archive(folder: Path, count: int, *, side: int = 64) -> Path:
    """Write this many gray JPEGs, no two alike, a hundred in a folder."""
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"box {number // 100}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 256, (4, 4), np.uint8)
        cv2.imwrite(str(path), cv2.resize(coarse, (side, side)))
    return folder


def hash_files(folder: Path) -> dict[str, str]:
    """Hash all pictures below a folder, by their names; what begins with a dot is left out."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {
        str(name): hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in names
        if not any(part.startswith(".") for part in name.parts)
    }


def start_batch(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    command = [str(REHUE), "batch", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | environment,
    )  # fmt: skip


def run_batch(*arguments: object, **environment: str) -> tuple[int, str]:
    """Run `rehue batch`; returns its exit code and what it printed."""
    process = start_batch(*arguments, **environment)
    printed, _ = process.communicate()
    return process.returncode, printed


def find_driver(process: subprocess.Popen[str]) -> psutil.Process:
    """Return the process behind the supervisor, which drives Ray."""
    (driver,) = psutil.Process(process.pid).children()
    return driver


def kill_driver_when(process: subprocess.Popen[str], is_time: Callable[[], bool]) -> None:
    """Kill the process that drives Ray as soon as it is time."""
    import time

    while not is_time():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    find_driver(process).kill()
    process.communicate()
