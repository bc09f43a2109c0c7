"""The cost of everything but the network, compared with scikit-image in the same run."""

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

from loadtest.samples import ROOT, create_photograph
from loadtest.saturation import open_sender, saturate
from loadtest.usage import measure_usage
from rehue_core import colorize, spec
from rehue_serve import images
from rehue_serve.encoding.pictures import encode_pictures
from rehue_serve.endpoints import Endpoints
from rehue_serve.testing.servers import run_server
from rehue_serve.testing.tritons import run_sleeping_triton
from rehue_serve.triton import TritonClient

SIZES = {
    "512 px": (512, 512),
    "1 MP": (1024, 1024),
    "12 MP": (4000, 3000),
    "24 MP": (6000, 4000),
}
SERVED_SIZES = ("512 px", "1 MP", "12 MP")
MODEL = spec.read_model_contract(ROOT / "model_repository/rehue/configs/cpu.pbtxt")
NOISE = np.random.default_rng(0).normal(0, 15, (2, MODEL.ab_height, MODEL.ab_width))
SMOOTH = cv2.GaussianBlur(NOISE.transpose(1, 2, 0) * 8, (0, 0), 6).transpose(2, 0, 1)
OUTPUT = SMOOTH.astype(MODEL.output_type)  # of the network: 2HW, ab


def colorize_with_rehue(photograph: bytes) -> bytes:
    """Decode, prepare, compose and encode, with `OUTPUT` as the network's output."""
    opened = images.open_image(photograph, max_bytes=1 << 30, max_pixels=1 << 30)
    lightness = images.decode_lightness(opened)
    _, box = colorize.prepare_input(lightness, MODEL)
    planes = colorize.compose_planes(lightness, OUTPUT, box, MODEL, 1.0)
    return encode_pictures([planes], "jpeg", 92)


def colorize_with_skimage(photograph: bytes) -> bytes:
    """Do the same with scikit-image alone, as in its documentation."""
    rgb = np.asarray(Image.open(io.BytesIO(photograph)).convert("RGB"))
    lightness = skimage.color.rgb2lab(rgb)[..., 0]
    skimage.transform.resize(lightness, (MODEL.height, MODEL.width), anti_aliasing=True)
    ab = skimage.transform.resize(OUTPUT.transpose(1, 2, 0).astype(float), lightness.shape)
    picture = skimage.color.lab2rgb(np.dstack([lightness, ab]))
    out = io.BytesIO()
    Image.fromarray(skimage.util.img_as_ubyte(picture)).save(out, "jpeg", quality=92)  # type: ignore[attr-defined]
    return out.getvalue()


def compare_chains(rounds: int) -> dict[str, dict[str, float]]:
    """Compare both chains: CPU ms on one thread, and Rehue's peak memory per RGB picture."""
    cv2.setNumThreads(1)
    colorize_with_rehue(create_photograph(64, 64))  # creates the lookup tables
    photographs = {
        f"{name} {kind}": (create_photograph(*size, gray=kind == "gray"), size[0] * size[1])
        for name, size in SIZES.items()
        for kind in ("colour", "gray")
    }
    # In a new process: memory that this one has freed but not returned would change the peaks.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        encoded = [photograph for photograph, _ in photographs.values()]
        peaks = pool.submit(_measure_peaks, encoded).result()
    return {
        name: compare_cpu(photograph, pixels, rounds) | {"memory over RGB": peak / (3 * pixels)}
        for (name, (photograph, pixels)), peak in zip(photographs.items(), peaks, strict=True)
    }


def _measure_peaks(photographs: list[bytes]) -> list[int]:
    cv2.setNumThreads(1)
    colorize_with_rehue(create_photograph(64, 64))
    return [
        measure_peak_memory(functools.partial(colorize_with_rehue, photograph))
        for photograph in photographs
    ]


def compare_cpu(photograph: bytes, pixels: int, rounds: int) -> dict[str, float]:
    """Return the medians of both chains, run in turn; large photographs run once."""
    repeats = max(1, 2**21 // pixels)
    theirs, ours = [], []
    for _ in range(rounds if repeats > 1 else 1):
        theirs.append(measure_cpu_ms(colorize_with_skimage, photograph, repeats))
        ours.append(measure_cpu_ms(colorize_with_rehue, photograph, repeats * 5))
    their_ms, our_ms = statistics.median(theirs), statistics.median(ours)
    return {"scikit-image ms": their_ms, "ours ms": our_ms, "times": their_ms / our_ms}


def measure_cpu_ms(work: Callable[[bytes], object], photograph: bytes, repeats: int) -> float:
    """Return the mean CPU time of a call in ms, over all threads of this process."""
    start = time.process_time()
    for _ in range(repeats):
        work(photograph)
    return (time.process_time() - start) / repeats * 1000


def measure_peak_memory(work: Callable[[], Any]) -> int:
    """Return the bytes of resident memory that a call adds at its peak (Linux)."""
    ctypes.CDLL(None).malloc_trim(0)  # returns freed memory, which would hide some of the peak
    before = read_memory("VmRSS")
    reset_peak_memory()
    work()
    return read_memory("VmHWM") - before


def reset_peak_memory() -> None:
    """Set the peak of this process's resident memory (``VmHWM``) to what it is now."""
    Path("/proc/self/clear_refs").write_text("5")


def read_memory(name: str) -> int:
    """Return a line of this process's memory status (``VmRSS``, ``VmHWM``) in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def measure_served_chain(seconds: float) -> dict[str, dict[str, float]]:
    """Measure the CPU of all server processes, with a network that answers at once."""
    rows: dict[str, dict[str, float]] = {}
    with run_sleeping_triton(0) as triton, run_server(triton_urls=triton.url) as server:

        def read_cpu() -> float:
            return measure_usage([server.pid, triton.pid]).cpu

        for name in SERVED_SIZES:
            width, height = SIZES[name]
            repeats = max(1, 2**21 // (width * height))
            for kind in ("colour", "gray"):
                photograph = create_photograph(width, height, gray=kind == "gray")
                theirs = measure_cpu_ms(colorize_with_skimage, photograph, repeats)
                concurrency = 16 if width < 2000 else 4
                for protocol, url in server.urls.items():
                    rate, cpu = asyncio.run(
                        saturate_url(url, photograph, seconds, concurrency, read_cpu)
                    )
                    rows[f"{name} {kind} {protocol}"] = {
                        "images/s": rate,
                        "CPU ms": cpu * 1000,
                        "images/s a core": 1 / cpu,
                        "scikit-image ms": theirs,
                        "share of scikit-image": cpu * 1000 / theirs,
                    }
    return rows


def measure_tensor_transport(seconds: float) -> dict[str, dict[str, float]]:
    """Measure the CPU of tensors to Triton and back, here and in Triton.

    The network answers at once.
    """
    with run_sleeping_triton(0) as triton:

        def read_cpu() -> float:
            return time.process_time() + measure_usage([triton.pid]).cpu

        return {
            name: asyncio.run(_saturate_triton(triton.url, seconds, read_cpu, shared_memory=shared))
            for name, shared in (("in messages", False), ("shared memory", True))
        }


async def _saturate_triton(
    url: str, seconds: float, read_cpu: Callable[[], float], *, shared_memory: bool
) -> dict[str, float]:
    endpoints = Endpoints([url], model=MODEL.name, limit=2)
    triton = TritonClient(endpoints, default_model=MODEL.name, shared_memory=shared_memory)
    await triton.start()
    loop = asyncio.get_running_loop()
    input = np.zeros((1, MODEL.height, MODEL.width), MODEL.input_type)

    async def send() -> None:
        await triton.infer(MODEL, input, loop.time() + 60)

    rate, cpu = await saturate(send, seconds, 16, read_cpu)
    await triton.close()
    return {"images/s": rate, "CPU ms": cpu * 1000}


async def saturate_url(
    url: str,
    photograph: bytes,
    seconds: float,
    concurrency: int,
    read_usage: Callable[[], float] = lambda: 0.0,
    *,
    model: str = "",
) -> tuple[float, float]:
    """Saturate a server with one photograph; see `saturate` and `open_sender`."""
    async with open_sender(url, photograph, model) as send:
        return await saturate(send, seconds, concurrency, read_usage)
