"""Memory and time of large photographs, each in a process of its own.

    python -m loadtest.large FILE FORMAT FILE FORMAT   # a line of JSON for each photograph

FORMAT is that of the answer, with other parameters after it: ``jpeg,profile=keep,mark=visible``.
Everything but the network runs, from the file to the encoded answer.
"""

import asyncio
import ctypes
import gc
import json
import math
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from loadtest.chain import MODEL, OUTPUT, read_memory, reset_peak_memory
from loadtest.samples import PHOTOS, ROOT
from rehue_core.colorize import ModelSpec
from rehue_serve import images
from rehue_serve.admission import Admission
from rehue_serve.choices import Parameters
from rehue_serve.formats import can_hold_alpha
from rehue_serve.memory_estimate import estimate_memory
from rehue_serve.pipeline import Pipeline
from rehue_serve.settings import Settings

# Megapixels, name, file name, and the format of the answer.
LARGE = (
    (50, "JPEG", "colour.jpg", "jpeg"),
    (50, "JPEG to WebP", "colour.jpg", "webp"),
    (50, "16-bit gray TIFF", "deep.tif", "tiff"),
    (50, "16-bit RGB TIFF", "deep-rgb.tif", "tiff"),
    (200, "JPEG", "colour.jpg", "jpeg"),
    (200, "16-bit gray TIFF", "deep.tif", "tiff"),
    (200, "16-bit gray TIFF to PNG", "deep.tif", "png"),
)
GRAIN = 4.0  # standard deviation of the film's grain, of 255
STRIP = 64  # rows


def measure_large(rows: Any = LARGE) -> dict[str, dict[str, float]]:
    """Measure peak memory and CPU time of photographs of 50 and 200 megapixels."""
    table = {}
    for megapixels, name, file, format in rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / file
            write_scan(path, megapixels)
            (found,) = measure_in_processes([(path, format)])
        table[f"{megapixels} MP, {name}"] = {
            "peak MB": found["peak"] / 1e6,
            "bytes a pixel": found["peak"] / found["pixels"],
            "over the decoded answer": found["peak"] / found["decoded"],
            "estimated MB": found["estimate"] / 1e6,
            "CPU s": found["seconds"],
        }
    return table


def write_scan(path: Path, megapixels: float) -> None:
    """Write a photograph of that size, enlarged and with grain, in the format of its name."""
    side = math.isqrt(round(megapixels * 1e6))
    small = cv2.imread(str(PHOTOS / "skimage_astronaut.jpg"))
    if path.suffix == ".jpg":
        picture = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
        for top in range(0, side, STRIP):
            rows = picture[top : top + STRIP]
            rows[:] = _add_grain(rows, top, 255)
        cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
        return
    samples = 3 if "rgb" in path.stem else 1
    if samples == 1:
        small = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    with path.open("wb") as file:
        shape = (side, side, 3)[: 3 if samples == 3 else 2]
        tifffile.imwrite(
            file, _yield_strips(small, side), shape=shape, dtype="<u2", metadata=None,
            photometric="rgb" if samples == 3 else "minisblack", rowsperstrip=STRIP,
        )  # fmt: skip


def _yield_strips(small: NDArray[Any], side: int) -> Any:
    """Yield the bytes of each strip of an enlarged picture, 16-bit and with grain."""
    for top in range(0, side, STRIP):
        lines = (np.arange(top, min(top + STRIP, side)) * len(small)) // side
        rows = cv2.resize(small[lines], (side, len(lines)), interpolation=cv2.INTER_LINEAR)
        yield _add_grain(rows.astype(np.float32) * 257, top, 65535).astype("<u2").tobytes()


def _add_grain(rows: NDArray[Any], seed: int, largest: int) -> NDArray[Any]:
    noise = np.random.default_rng(seed).standard_normal(rows.shape, np.float32)
    return np.asarray(np.clip(rows + noise * (GRAIN * largest / 255), 0, largest))


def measure_in_processes(files: Iterable[tuple[Path, str]]) -> list[dict[str, float]]:
    """Colorize files, each in a new process; return their peak memory and estimates, in bytes.

    Args:
        files: paths, and the formats of the answers with other parameters after them.
    """
    words = [str(word) for file in files for word in file]
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.large", *words],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [dict(json.loads(line)) for line in done.stdout.splitlines()]


class _Network:
    """Stands in for Triton's client: answers at once, with `OUTPUT`."""

    def __init__(self) -> None:
        self.models = self

    async def get_spec(self, name: str) -> ModelSpec:  # noqa: ARG002  # as the client's
        return MODEL

    async def infer(self, *_: Any) -> tuple[Any, str]:
        return OUTPUT, "1"


async def colorize_file(read: Callable[[], bytes], format: str, **choices: str) -> dict[str, float]:
    """Colorize a file, given by what reads it, as the server does, but for the network."""
    parameters = Parameters(format=format, **choices)  # type: ignore[arg-type]
    pipeline = _create_pipeline()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = read_memory("VmRSS")
    reset_peak_memory()
    started = time.process_time()
    answer = await pipeline.colorize(read(), parameters, 1e9)
    seconds, peak = time.process_time() - started, read_memory("VmHWM") - before
    pipeline.close()
    photograph = images.open_image(read(), max_bytes=1 << 40, max_pixels=1 << 40)
    pixels, header = photograph.header.pixels, photograph.header
    format = answer.media_type.removeprefix("image/")
    samples = 4 if header.has_alpha and can_hold_alpha(format) else 3
    depth = images.choose_depth(header, format, parameters.depth)
    return {
        "pixels": pixels,
        "decoded": pixels * samples * np.dtype(depth).itemsize,
        "estimate": estimate_memory(
            photograph, format, parameters.depth, signed=b"c2pa\0" in answer.data
        ),
        "peak": peak,
        "answer": len(answer.data),
        "seconds": seconds,
    }


def _create_pipeline() -> Pipeline:
    settings = Settings(max_bytes=1 << 40, max_pixels=1 << 40, work_memory=1 << 40)
    network: Any = _Network()
    return Pipeline(settings, network, Admission(settings))


def main() -> None:
    """Print a line of JSON for each pair of a file and a format."""
    _create_pipeline().close()  # with what is imported and built at the start, for all processes
    fork = multiprocessing.get_context("fork")
    for path, format in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        process = fork.Process(target=_print_figures, args=(Path(path), format))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(process.exitcode)


def _print_figures(path: Path, words: str) -> None:
    format, *others = words.split(",")
    choices = dict(word.split("=") for word in others)
    print(json.dumps(asyncio.run(colorize_file(path.read_bytes, format, **choices))), flush=True)


if __name__ == "__main__":
    main()
