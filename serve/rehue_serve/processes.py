"""The processes that this one started, however distantly, and their end."""

import contextlib
import ctypes
import signal
from collections.abc import Collection, Iterator

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


def end_with_parent() -> None:
    """For Popen's ``preexec_fn``: SIGTERM when the thread that starts the process ends.

    A process that is killed runs no ``finally``; what it started would go on without it.
    """
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0):
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
