"""One job at a time for a target: a lock file, or an object with a lease."""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from rehue_serve.batch.options import BatchFailed
from rehue_serve.batch.stores import FOLDER, UNFINISHED, get_store, is_local, join_location

LEASE = 30.0  # seconds after which a lock that does not change is a dead job's
SETTLE = 2.0  # seconds until two jobs that took a lock at once see whose it is


class TargetLock:
    """A target that is held.

    Attributes:
        problem: why it is no longer held; empty while it is.
    """

    problem = ""


def hold_target(target: str) -> AbstractContextManager[TargetLock]:
    """Claim a target for one job, and remove what a killed one left unfinished.

    Raises, when it is entered:
        BatchFailed: another job has it.
        OSError: the store does not answer.
    """
    return _hold_folder(target) if is_local(target) else _hold_prefix(target)


@contextlib.contextmanager
def _hold_folder(target: str) -> Iterator[TargetLock]:
    """Hold a folder against jobs of this machine, and of others with the same file server."""
    folder = Path(target, FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BatchFailed(f"Another job is writing to {target}.") from None
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
        yield TargetLock()


@contextlib.contextmanager
def _hold_prefix(target: str) -> Iterator[TargetLock]:
    lease = Lease(target)
    lease.take()
    ended = threading.Event()
    thread = threading.Thread(target=lease.keep, args=(ended,), daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        ended.set()
        thread.join()
        lease.release()


@dataclass(frozen=True)
class Owner:
    """The job that holds a target.

    Attributes:
        host: name of its machine or pod.
        place: the machine since it booted, and its process namespace.
        began: when the process began, in seconds since 1970.
        token: of this one claim.
        renewals: how often the job has renewed the lock since.
    """

    host: str
    place: str
    pid: int
    began: float
    token: str
    renewals: int = 0

    @classmethod
    def describe_own(cls) -> "Owner":
        token = secrets.token_hex(8)
        return cls(socket.gethostname(), _name_place(), os.getpid(), _read_start(), token)

    @property
    def is_dead(self) -> bool:
        """Whether it ran on this machine and has ended; False where that is unknown."""
        if self.place != _name_place():
            return False
        try:
            return psutil.Process(self.pid).create_time() != self.began
        except psutil.NoSuchProcess:
            return True


def _name_place() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115  # no real link


def _read_start() -> float:
    return float(psutil.Process().create_time())


class Lease(TargetLock):
    """An object that its owner renews; the clocks of machines are not compared."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._location = join_location(target, f"{FOLDER}/lock")
        self._own = Owner.describe_own()

    def take(self) -> None:
        """Wait until the last owner is known to be dead, and take its place.

        Raises:
            BatchFailed: it is alive.
            OSError: the store does not answer.
        """
        seen = self._read()
        if seen is not None and not seen.is_dead:
            self._watch(seen)
        self._write()
        time.sleep(SETTLE)  # the last of several that write now has it
        self._check()

    def keep(self, ended: threading.Event) -> None:
        """Renew it until the event, or until another job has it."""
        while not ended.wait(LEASE / 3):
            with contextlib.suppress(OSError):  # a store that fails now and then
                try:
                    self._check()
                except BatchFailed as error:
                    self.problem = str(error)
                    return
                self._own = replace(self._own, renewals=self._own.renewals + 1)
                self._write()

    def release(self) -> None:
        with contextlib.suppress(OSError, BatchFailed):
            self._check()
            get_store(self._location).delete(self._location)

    def _watch(self, seen: Owner) -> None:
        """Wait for as long as a living owner takes to renew its lease."""
        print(
            f"{self._target} is locked by process {seen.pid} on {seen.host}: "
            f"waiting {LEASE:.0f} s to see whether it lives", file=sys.stderr,
        )  # fmt: skip
        deadline = time.monotonic() + LEASE
        while time.monotonic() < deadline:
            time.sleep(LEASE / 15)
            now = self._read()
            if now is None:
                return
            if now != seen:
                raise self._refuse(now)

    def _check(self) -> None:
        now = self._read()
        if now is not None and now.token != self._own.token:
            raise self._refuse(now)

    def _refuse(self, owner: Owner) -> BatchFailed:
        return BatchFailed(
            f"Another job is writing to {self._target}: process {owner.pid} on {owner.host}."
        )

    def _read(self) -> Owner | None:
        try:
            return Owner(**json.loads(get_store(self._location).read(self._location)))
        except (FileNotFoundError, ValueError, TypeError):  # none, or not of this version
            return None

    def _write(self) -> None:
        data = json.dumps(asdict(self._own)).encode()
        get_store(self._location).write(self._location, data, self._target)
