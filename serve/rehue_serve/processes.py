"""The processes that this one started, however distantly, and their end."""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
PATIENCE = 5.0  # seconds between asking a process to end and killing it


@contextlib.contextmanager
def none_left() -> Iterator[None]:
    """Adopts every process that a child leaves behind, and ends all of them at the end."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        end(descendants())
        _prctl(PR_SET_CHILD_SUBREAPER, 0)


def behind_a_front() -> int | None:
    """Goes on in a child, in a session of its own; call it before there are threads.

    Signals to a whole process group (a terminal's, a shell's ``kill %1``, ``timeout``) would
    reach Ray's processes too, and an orderly stop needs those. They end at the front, which
    passes SIGINT and SIGTERM on, waits, and ends what a child that crashed has left. A front
    that is killed has its child stop in order.

    Returns:
        None in the child; in the front the child's exit code, as a shell has it.
    """
    child = os.fork()
    if child == 0:
        os.setsid()
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        return None
    with none_left():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os.kill(child, number))
        _, status = os.waitpid(child, 0)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def bound(command: Sequence[str | Path]) -> list[str]:
    """The command, told to stop (SIGTERM) when the thread that starts it ends.

    A process that is killed runs no ``finally``, and what it started would go on without
    it. Popen's ``preexec_fn`` could say so too, but forks, which gRPC's threads do not like.
    """
    say = f"ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, {int(signal.SIGTERM)}, 0, 0, 0)"
    script = f"import ctypes, os, sys; {say}; os.execvp(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-IS", "-c", script, *map(str, command)]


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def descendants(name: str = "") -> list[psutil.Process]:
    """All of them, or those of this name."""
    found = psutil.Process().children(recursive=True)
    return [one for one in found if not name or _name(one) == name]


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def end(processes: list[psutil.Process], *, spare: Collection[psutil.Process] = ()) -> None:
    """Asks, waits, then kills."""
    processes = [process for process in processes if process not in spare]
    for act in ("terminate", "kill"):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                getattr(process, act)()
        _, processes = psutil.wait_procs(processes, timeout=PATIENCE)
