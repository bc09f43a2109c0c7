"""What everything but the network costs, beside scikit-image in the same run."""

import asyncio
import ctypes
import functools
import io
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage
from PIL import Image

import servers
from rehue_core import colorize, lab, spec
from rehue_serve import images
from rehue_serve.endpoints import Endpoints
from rehue_serve.testing.servers import run_server
from rehue_serve.testing.tritons import run_sleeping_triton
from rehue_serve.triton import TritonClient
from running import ROOT, photograph, saturate, sender

SIZES = {
    "512 px": (512, 512),
    "1 MP": (1024, 1024),
    "12 MP": (4000, 3000),
    "24 MP": (6000, 4000),
}
SERVED = ("512 px", "1 MP", "12 MP")
MODEL = spec.read_model_contract(ROOT / "model_repository/rehue/configs/cpu.pbtxt")
AB = np.random.default_rng(0).normal(0, 15, (2, MODEL.ab_height, MODEL.ab_width))
COLOURS = cv2.GaussianBlur(AB.transpose(1, 2, 0) * 8, (0, 0), 6).transpose(2, 0, 1)
OUTPUT = COLOURS.astype(MODEL.output_type)


def ours(photo: bytes) -> bytes:
    """Decode to encode, with colours already there."""
    _, image = images.open_image(photo, max_bytes=1 << 30, max_pixels=1 << 30)
    lightness = images.decode_in_strips(image, lab.compute_fine_lightness)
    _, box = colorize.prepare_input(lightness, MODEL)
    return images.encode_image(colorize.compose_rgb(lightness, OUTPUT, box, MODEL, 1.0), "jpeg", 92)


def skimages(photo: bytes) -> bytes:
    """The same with scikit-image alone, as its documentation has it."""
    rgb = np.asarray(Image.open(io.BytesIO(photo)).convert("RGB"))
    lightness = skimage.color.rgb2lab(rgb)[..., 0]
    skimage.transform.resize(lightness, (MODEL.height, MODEL.width), anti_aliasing=True)
    ab = skimage.transform.resize(OUTPUT.transpose(1, 2, 0).astype(float), lightness.shape)
    picture = skimage.color.lab2rgb(np.dstack([lightness, ab]))
    out = io.BytesIO()
    Image.fromarray(skimage.img_as_ubyte(picture)).save(out, "jpeg", quality=92)
    return out.getvalue()


def lab_chain(rounds: int) -> dict[str, dict[str, float]]:
    """CPU milliseconds of both on one thread, and memory over the decoded RGB picture."""
    cv2.setNumThreads(1)
    ours(photograph(64, 64))  # makes the tables
    photos = {
        f"{name} {kind}": (photograph(*size, gray=kind == "gray"), size[0] * size[1])
        for name, size in SIZES.items()
        for kind in ("colour", "gray")
    }
    # In a new process: what this one has freed and still holds would hide or add some.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        peaks = pool.submit(_peaks, [photo for photo, _ in photos.values()]).result()
    return {
        name: beside(photo, pixels, rounds) | {"memory over RGB": most / (3 * pixels)}
        for (name, (photo, pixels)), most in zip(photos.items(), peaks, strict=True)
    }


def _peaks(photos: list[bytes]) -> list[int]:
    cv2.setNumThreads(1)
    ours(photograph(64, 64))
    return [peak(functools.partial(ours, photo)) for photo in photos]


def beside(photo: bytes, pixels: int, rounds: int) -> dict[str, float]:
    """Medians of both ways, in turn; large pictures once, since scikit-image takes seconds."""
    often = max(1, 2**21 // pixels)
    theirs, mine = [], []
    for _ in range(rounds if often > 1 else 1):
        theirs.append(cpu_ms(skimages, photo, often))
        mine.append(cpu_ms(ours, photo, often * 5))
    a, b = statistics.median(theirs), statistics.median(mine)
    return {"scikit-image ms": a, "ours ms": b, "times": a / b}


def cpu_ms(work: Callable[[bytes], bytes], photo: bytes, often: int) -> float:
    """CPU time of one call, all threads of this process, mean of so many."""
    began = time.process_time()
    for _ in range(often):
        work(photo)
    return (time.process_time() - began) / often * 1000


def peak(work: Callable[[], Any]) -> int:
    """Bytes of resident memory that the call needs at its highest point (Linux)."""
    ctypes.CDLL(None).malloc_trim(0)  # memory that was freed and kept would hide some of it
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again
    work()
    return resident("VmHWM") - before


def resident(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def around_the_network(seconds: float) -> dict[str, dict[str, float]]:
    """The whole system with a network that answers at once: CPU of all server processes."""
    rows: dict[str, dict[str, float]] = {}
    with run_sleeping_triton(0) as triton, run_server(triton_urls=triton.url) as server:

        def used() -> float:
            return servers.use([server.pid, triton.pid]).cpu

        for name in SERVED:
            width, height = SIZES[name]
            often = max(1, 2**21 // (width * height))
            for kind in ("colour", "gray"):
                photo = photograph(width, height, gray=kind == "gray")
                theirs = cpu_ms(skimages, photo, often)
                for protocol, url in server.urls.items():
                    many = 16 if width < 2000 else 4
                    rate, cpu = asyncio.run(load(protocol, url, photo, seconds, many, used))
                    rows[f"{name} {kind} {protocol}"] = {
                        "images/s": rate,
                        "CPU ms": cpu * 1000,
                        "images/s a core": 1 / cpu,
                        "scikit-image ms": theirs,
                        "share of scikit-image": cpu * 1000 / theirs,
                    }
    return rows


def tensors_to_triton(seconds: float) -> dict[str, dict[str, float]]:
    """Network inputs to a Triton that answers at once and back: CPU here and in Triton."""
    with run_sleeping_triton(0) as triton:

        def used() -> float:
            return time.process_time() + servers.use([triton.pid]).cpu

        return {
            name: asyncio.run(through_triton(triton.url, seconds, used, shared_memory=shared))
            for name, shared in (("in messages", False), ("shared memory", True))
        }


async def through_triton(
    url: str, seconds: float, used: Callable[[], float], *, shared_memory: bool
) -> dict[str, float]:
    endpoints = Endpoints([url], model=MODEL.name, limit=2)
    triton = TritonClient(endpoints, default_model=MODEL.name, shared_memory=shared_memory)
    await triton.start()
    loop = asyncio.get_running_loop()
    input = np.zeros((1, MODEL.height, MODEL.width), MODEL.input_type)

    async def send() -> None:
        await triton.infer(MODEL, input, loop.time() + 60)

    rate, cpu = await saturate(send, seconds, 16, used)
    await triton.close()
    return {"images/s": rate, "CPU ms": cpu * 1000}


async def load(
    protocol: str,
    url: str,
    photo: bytes,
    seconds: float,
    concurrency: int,
    used: Callable[[], float],
) -> tuple[float, float]:
    async with sender(protocol, url, photo) as send:
        return await saturate(send, seconds, concurrency, used)
