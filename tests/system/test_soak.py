"""Good and bad photographs at a high load: no leak of memory, files or processes.

``make soak`` takes 20 minutes at 80 % of what the system was seen to do just before,
``make test`` 20 seconds at 40 % of what its Tritons could, since other work may share
the machine.
"""

import io
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import psutil
import pytest
from http2 import upload_http2
from load import Load, measure_goodput
from paths import PHOTOS
from PIL import Image
from slow_uploads import trickle_uploads
from systems import System

from rehue_serve.testing.servers import Server

LIMIT = 64  # photographs a second of two Tritons at 0.25 s for eight; seen: about 50
BAD = 4  # a second, beside the good ones
SLOW = 32  # uploads that send a byte now and then
SAMPLE = 1.0  # seconds between two looks at every process


def create_bad_requests(photo: bytes) -> list[Callable[[httpx.Client], httpx.Response]]:
    """Return a request for each kind of refusal."""
    huge = io.BytesIO()
    Image.new("1", (15000, 15000)).save(huge, "PNG")
    return [
        lambda http: http.post("/v1/colorize", content=photo[: len(photo) // 2]),
        lambda http: http.post("/v1/colorize", content=b"not a photograph" * 100),
        lambda http: http.post("/v1/colorize", content=huge.getvalue()),
        lambda http: http.post("/v1/colorize", content=photo, params={"strength": "9"}),
        lambda http: http.post("/v1/colorize", content=photo, params={"model": "nobody"}),
        lambda http: http.post("/v1/colorize", files={"other": photo}),
        lambda http: http.post(
            "/v1/colorize", content=photo, headers={"X-Request-Timeout": "0.001"}
        ),
    ]


@pytest.mark.timeout(0)
def test_nothing_piles_up(system: System, request: pytest.FixtureRequest) -> None:
    (raylet,) = system.list_processes("raylet/raylet")
    assert "narenas:1" in raylet.environ()["MALLOC_CONF"]  # or it grows by 11 MiB an hour
    seconds = float(request.config.getoption("--soak-seconds"))
    out = io.BytesIO()
    Image.open(PHOTOS / "skimage_astronaut.jpg").resize((256, 256)).save(out, "JPEG")
    photo = out.getvalue()
    bad: Counter[int] = Counter()
    for triton in system.tritons:
        triton.set_batch_seconds(8 * len(system.tritons) / LIMIT)
    try:
        rate = 0.4 * LIMIT
        if seconds >= 300:
            rate = 0.8 * measure_goodput(system.urls, photo, rate=1.5 * LIMIT, seconds=10)[0]
        with Load(system.urls, photo, rate) as load, ThreadPoolExecutor(1) as pool:
            time.sleep(5)  # caches fill, threads start
            until = time.monotonic() + seconds
            refusals = pool.submit(send_bad, system.server, photo, until, bad)
            before = count_shared_memory(system)
            table = watch_processes(system.list_processes(), until)
            after = count_shared_memory(system)
            refusals.result()
    finally:
        for triton in system.tritons:
            triton.set_batch_seconds()
    print(f"\nsoak, {seconds:.0f} s at {rate:.1f}/s: good {load.counts}, bad {dict(bad)}")
    print(render_report(table), f"\n\nregions of shared memory: {before}, {after}")
    # A short burst may be refused; a good photograph must not fail otherwise.
    assert load.counts.keys() <= {"ok", "Overloaded"}, set(map(str, load.errors))
    assert load.counts["ok"] >= 0.99 * len(load.outcomes)
    assert bad.keys() <= {400, 404, 413, 422, 429, 504}
    for name, rows in table.items():
        files = np.array(rows)[:, 2]
        half = len(rows) // 2
        assert files[half:].max() <= files[:half].max() + 8, name
        # A leak of one small photograph in two hundred would be more in ten minutes.
        assert compute_slope(rows[half:]) * seconds / 2 < 8, name
    assert after <= before
    time.sleep(60 if seconds >= 300 else 5)
    use = measure_idle_use(system.list_processes(), 10)
    print("\nwithout load:", {name: f"{share:.1%}" for name, share in use.items() if share > 0.01})
    assert max(use.values()) < 0.05, use


def send_bad(server: Server, photo: bytes, until: float, statuses: "Counter[int]") -> None:
    """Send refused photographs, uploads over HTTP/2 that end early, and slow ones beside them."""
    chance = random.Random(0)
    kinds = create_bad_requests(photo)
    port = server.ports["http"]
    with httpx.Client(base_url=server.http_url, timeout=30) as http:
        while time.monotonic() < until:
            with trickle_uploads(port, SLOW):
                for _ in range(10 * BAD):
                    statuses[chance.choice(kinds)(http).status_code] += 1
                    time.sleep(1 / BAD)
            early = upload_http2(port, "/v1/colorize", bytes(20_000))
            assert early, "no answer to an upload over HTTP/2"
            statuses[early] += 1


def measure_idle_use(processes: list[psutil.Process], seconds: float) -> dict[str, float]:
    """Return the share of a core that each process uses when there is no load."""
    before = {process: sum(process.cpu_times()[:2]) for process in processes}
    time.sleep(seconds)
    return {
        f"{process.name()} {process.pid}": (sum(process.cpu_times()[:2]) - used) / seconds
        for process, used in before.items()
        if process.is_running()
    }


def count_shared_memory(system: System) -> int:
    """Return the number of shared memory regions of the system's processes."""
    paths = {
        memory_map.path
        for process in system.list_processes()
        for memory_map in process.memory_maps()
    }
    return sum(path.startswith("/dev/shm") for path in paths)


def watch_processes(processes: list[psutil.Process], until: float) -> dict[str, list[list[float]]]:
    """Seconds, MiB of resident memory and open files of each process, again and again."""
    table: dict[str, list[list[float]]] = {}
    # Ray changes its processes' names while they run.
    names = {process: f"{process.name().split('.')[0]} {process.pid}" for process in processes}
    began = time.monotonic()
    for number in itertools.count():
        for process in processes:
            row = [
                time.monotonic() - began,
                process.memory_info().rss / 2**20,
                float(process.num_fds()),
            ]
            table.setdefault(names[process], []).append(row)
        if time.monotonic() > until:
            return table
        time.sleep(max(0.0, began + (number + 1) * SAMPLE - time.monotonic()))
    raise AssertionError


def compute_slope(rows: list[list[float]]) -> float:
    """MiB a second by which a process grew."""
    table = np.array(rows)
    return float(np.polyfit(table[:, 0], table[:, 1], 1)[0])


def render_report(table: dict[str, list[list[float]]]) -> str:
    """Each process's memory and files, first and last, and how it grew in each quarter."""
    lines = ["| Process | MiB, first | last | MiB/h, by quarter | files, first | last |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for name, rows in table.items():
        (_, m0, f0), (_, m1, f1) = rows[0], rows[-1]
        quarters = (rows[len(rows) * i // 4 : len(rows) * (i + 1) // 4] for i in range(4))
        hourly = ", ".join(f"{compute_slope(quarter) * 3600:+.1f}" for quarter in quarters)
        lines.append(f"| {name} | {m0:.1f} | {m1:.1f} | {hourly} | {f0:.0f} | {f1:.0f} |")
    return "\n".join(lines)
