"""The descendants of this process: find them, bind them to it, end them."""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
TERMINATE_TIMEOUT = 5.0  # seconds between SIGTERM and SIGKILL


@contextlib.contextmanager
def end_descendants_at_exit() -> Iterator[None]:
    """Adopt every process that a child leaves behind, and end all of them at the end."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        end_processes(list_descendants())
        _prctl(PR_SET_CHILD_SUBREAPER, 0)


def run_behind_supervisor() -> int | None:
    """Fork, and continue in a child with a session of its own. Call it before there are threads.

    Signals to a whole process group (a terminal's, a shell's ``kill %1``, ``timeout``) would
    also reach Ray's processes, which an orderly stop still needs. Such signals end at the
    parent, the supervisor. It forwards SIGINT and SIGTERM, waits for the child, and ends what a
    crashed child leaves behind. If the supervisor itself is killed, the child stops in order.

    Returns:
        None in the child; in the supervisor the child's exit code, as a shell reports it.
    """
    child = os.fork()
    if child == 0:
        os.setsid()
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        return None
    with end_descendants_at_exit():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os.kill(child, number))
        _, status = os.waitpid(child, 0)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def bind_to_parent(command: Sequence[str | Path]) -> list[str]:
    """Wrap a command so that it gets SIGTERM when the thread that starts it ends.

    A process that is killed runs no ``finally``, and its children would continue without it.
    Popen's ``preexec_fn`` could do the same, but it runs Python between fork and exec, which is
    unsafe beside gRPC's threads.
    """
    prctl = f"ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, {int(signal.SIGTERM)}, 0, 0, 0)"
    script = f"import ctypes, os, sys; {prctl}; os.execvp(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-IS", "-c", script, *map(str, command)]


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def list_descendants(name: str = "") -> list[psutil.Process]:
    """Return all descendants of this process, or those with this name."""
    descendants = psutil.Process().children(recursive=True)
    return [process for process in descendants if not name or _read_name(process) == name]


def _read_name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def end_processes(
    processes: list[psutil.Process], *, spare: Collection[psutil.Process] = ()
) -> None:
    """Terminate the processes that are not spared; kill those that are still there after 5 s."""
    processes = [process for process in processes if process not in spare]
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                end(process)
        _, processes = psutil.wait_procs(processes, timeout=TERMINATE_TIMEOUT)
