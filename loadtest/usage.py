"""CPU time and memory of processes."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Usage:
    """CPU time and memory of some processes.

    Attributes:
        cpu: seconds of user and system time.
        memory: bytes, shared pages counted once (PSS).
    """

    cpu: float
    memory: int


def measure_usage(pids: Iterable[int]) -> Usage:
    """Return the usage of these processes and of all their running descendants."""
    cpu, memory = 0.0, 0
    for process in list_process_tree(pids):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            cpu += times.user + times.system
            memory += process.memory_full_info().pss
    return Usage(cpu, memory)


def list_process_tree(pids: Iterable[int]) -> list[psutil.Process]:
    """Return these processes and their running descendants, each once."""
    found: dict[int, psutil.Process] = {}
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            found |= {process.pid: process for process in (root, *root.children(recursive=True))}
    return list(found.values())
