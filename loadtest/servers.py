"""Servers that measurements start: waiting for them, and what they cost."""

import contextlib
import subprocess
import time
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

START_TIMEOUT = 180.0  # seconds


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until the URL answers 200.

    Raises:
        SystemExit: the process ended, or START_TIMEOUT passed.
    """
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise SystemExit(f"{process.args!r} did not answer at {url}")


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
