"""What an edit costs beside a first colorization, one request at a time.

A person who edits waits for the picture at screen size, so the page sends a copy of that size; the
server keeps the network's answer to it. In full, an edit saves the network alone; the table of its
stages (CPU, one thread) shows what is left.
"""

import functools
import io
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

from loadtest.chain import MODEL, OUTPUT
from loadtest.samples import create_photograph
from rehue_client import Client, Edits, Hint
from rehue_core import colorize, lab, ycbcr
from rehue_core import edits as core
from rehue_serve import images
from rehue_serve.encoding.pictures import encode_pictures

WIDTH, HEIGHT = 4000, 3000  # pixels: 12 megapixels
SCREEN = (1280, 960)

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


def measure_stages(rounds: int, run_network: Callable[[], object]) -> Rows:
    """Return the median CPU milliseconds of each stage, and of both in all, on one thread.

    Args:
        run_network: on one thread.
    """
    cv2.setNumThreads(1)
    data = create_photograph(WIDTH, HEIGHT, gray=True)
    click = core.Edits(hints=(core.Hint(0.3, 0.6, "#7a1f2b"),))

    def decode() -> lab.Lightness:
        photograph = images.open_image(data, max_bytes=len(data), max_pixels=WIDTH * HEIGHT)
        return images.decode_page(photograph, 0, keep_alpha=False)[0]

    lightness = decode()
    _, box = colorize.prepare_input(lightness, MODEL)
    ab = colorize.cut_out_box(OUTPUT, box, MODEL)
    small = ab.astype(np.float32) * np.float32(MODEL.ab_scale)
    field = core.apply_edits(small, lightness, click)
    planes = ycbcr.convert_to_planes(lightness, field)
    measure = functools.partial(_measure_cpu, rounds=rounds)
    decoded, encoded = (
        measure(decode),
        measure(lambda: encode_pictures([planes], "jpeg", 92)),
    )
    first = {
        "decode": decoded,
        "prepare the network's input": measure(lambda: colorize.prepare_input(lightness, MODEL)),
        "run the network": measure(run_network),
        "join with the lightness": measure(
            lambda: ycbcr.convert_to_planes(lightness, ab, strength=MODEL.ab_scale)
        ),
        "encode": encoded,
    }
    again = {
        "decode": decoded,
        "spread the hint": measure(lambda: core.apply_edits(small, lightness, click)),
        "join with the lightness": measure(lambda: ycbcr.convert_to_planes(lightness, field)),
        "encode": encoded,
    }
    ways = {"first colorization": first, "click in full": again}
    return {
        stage: {way: stages.get(stage, 0.0) for way, stages in ways.items()}
        for stage in dict.fromkeys([*first, *again])
    } | {"in all": {way: sum(stages.values()) for way, stages in ways.items()}}


def _measure_cpu(work: Callable[[], object], rounds: int) -> float:
    measured = []
    for _ in range(rounds + 1):  # the first one compiles
        started = time.thread_time()
        work()
        measured.append(1000 * (time.thread_time() - started))
    return statistics.median(measured[1:])


def _shrink(photograph: bytes) -> bytes:
    """Return the copy that the page sends."""
    file = io.BytesIO()
    Image.open(io.BytesIO(photograph)).resize(SCREEN).save(file, "JPEG", quality=92)
    return file.getvalue()
