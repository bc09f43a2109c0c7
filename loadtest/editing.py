"""What an edit costs beside a first colorization, one request at a time.

A person who edits waits for the picture at screen size, so the page sends a copy of that size; the
server keeps the network's answer to it. In full, an edit saves the network alone; the table of its
stages shows what else could be saved.
"""

import io
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

from loadtest.samples import create_photograph
from rehue_client import Client, Edits, Hint
from rehue_core import edits as core
from rehue_core import ycbcr
from rehue_serve import images
from rehue_serve.encoding.pictures import encode_pictures

WIDTH, HEIGHT = 4000, 3000  # pixels: 12 megapixels
SCREEN = (1280, 960)
STAGES = ("decode", "spread the hint", "join with the lightness", "encode")

Rows = dict[str, dict[str, float]]


def measure_edits(url: str, rounds: int) -> Rows:
    """Return the median milliseconds of each request, and its share of a first colorization."""
    photograph = create_photograph(WIDTH, HEIGHT, gray=True)
    screen = _shrink(photograph)
    clicks = (Edits(hints=(Hint(0.3 + number / 1000, 0.6, "#7a1f2b"),)) for number in range(10**6))
    with Client(url) as client:
        ways: dict[str, Callable[[], object]] = {
            "first colorization, 12 megapixels": lambda: client.colorize(photograph),
            "click, at screen size": lambda: client.colorize(screen, edits=next(clicks)),
            "click, in full": lambda: client.colorize(photograph, edits=next(clicks)),
            "candidates, at screen size": lambda: client.candidates(screen),
        }
        for send in ways.values():
            send()
        measured: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, send in ways.items():
                started = time.perf_counter()
                send()
                measured[name].append((time.perf_counter() - started) * 1000)
    medians = {name: statistics.median(values) for name, values in measured.items()}
    first = medians["first colorization, 12 megapixels"]
    return {
        name: {"ms": median, "of the first": median / first} for name, median in medians.items()
    }


def measure_stages(rounds: int) -> Rows:
    """Return the median CPU milliseconds of each stage of a click in full, on one thread."""
    cv2.setNumThreads(1)
    data = create_photograph(WIDTH, HEIGHT, gray=True)
    ab = np.random.default_rng(0).normal(0, 10, (96, 128, 2)).astype(np.float32)
    click = core.Edits(hints=(core.Hint(0.3, 0.6, "#7a1f2b"),))
    measured: dict[str, list[float]] = {}
    for _ in range(rounds + 1):  # the first one compiles
        times = [time.thread_time()]
        photograph = images.open_image(data, max_bytes=len(data), max_pixels=WIDTH * HEIGHT)
        lightness, _ = images.decode_page(photograph, 0, keep_alpha=False)
        times.append(time.thread_time())
        field = core.apply_edits(ab, lightness, click)
        times.append(time.thread_time())
        planes = ycbcr.convert_to_planes(lightness, field)
        times.append(time.thread_time())
        encode_pictures([planes], "jpeg", 92)
        times.append(time.thread_time())
        for name, milliseconds in zip(STAGES, 1000 * np.diff(times), strict=True):
            measured.setdefault(name, []).append(float(milliseconds))
    return {name: {"ms": statistics.median(values[1:])} for name, values in measured.items()}


def _shrink(photograph: bytes) -> bytes:
    """Return the copy that the page sends."""
    file = io.BytesIO()
    Image.open(io.BytesIO(photograph)).resize(SCREEN).save(file, "JPEG", quality=92)
    return file.getvalue()
