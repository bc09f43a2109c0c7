"""CPU time and memory of processes."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Use:
    """What processes used.

    Attributes:
        cpu: seconds of user and system time.
        memory: bytes, shared pages counted once (PSS).
    """

    cpu: float
    memory: int


def use(roots: Iterable[int]) -> Use:
    """Of the processes with these ids and all that they started and that still run."""
    cpu, memory = 0.0, 0
    for process in tree(roots):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            cpu += times.user + times.system
            memory += process.memory_full_info().pss
    return Use(cpu, memory)


def tree(roots: Iterable[int]) -> list[psutil.Process]:
    found: dict[int, psutil.Process] = {}
    for root in roots:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(root)
            found |= {one.pid: one for one in (process, *process.children(recursive=True))}
    return list(found.values())
