"""Start `rehue serve` on free ports, wait until it is ready, and stop it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from rehue_serve import processes
from rehue_serve.ports import claim_free_ports

START_TIMEOUT = 180.0  # seconds; Triton and Ray take most of a minute on a busy machine
STOP_TIMEOUT = 60.0  # seconds for requests in flight and for Ray's own shutdown
GREETING = "Stop: Ctrl-C"  # the last line that `rehue serve` prints when it starts


class ServerFailed(RuntimeError):
    """A server ended, or was not ready in time. The message holds the end of its log."""


@dataclass
class Server:
    """`rehue serve` in a process of its own.

    Attributes:
        ports: by use: ``http``, ``grpc`` and ``metrics``.
        log: where its output goes; None: nowhere.
    """

    process: subprocess.Popen[bytes]
    ports: dict[str, int]
    log: Path | None

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['http']}"

    @property
    def grpc_url(self) -> str:
        return f"grpc://127.0.0.1:{self.ports['grpc']}"

    @property
    def urls(self) -> dict[str, str]:
        """By protocol: ``http`` and ``grpc``."""
        return {"http": self.http_url, "grpc": self.grpc_url}

    def read_log(self) -> str:
        """Its output so far; empty if none is kept."""
        return self.log.read_text(errors="replace") if self.log else ""

    def wait_until_ready(self, while_waiting: Callable[[], None] = lambda: None) -> None:
        """Wait until it serves on both protocols and has printed its greeting.

        Args:
            while_waiting: called several times a second.

        Raises:
            ServerFailed: it ended, or START_TIMEOUT passed.
        """
        wait_for_answer(
            f"{self.http_url}/readyz", self.process, log=self.log, while_waiting=while_waiting
        )
        while self.log and GREETING not in self.read_log():
            if self.process.poll() is not None:
                raise ServerFailed(_describe_failure(self.process, self.log))
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it with a signal and kill what is left of it after STOP_TIMEOUT.

        Returns:
            Its exit code.

        Raises:
            subprocess.TimeoutExpired: it did not stop by itself.
        """
        if self.process.poll() is not None:
            return self.process.returncode
        root = psutil.Process(self.process.pid)
        processes = [*root.children(recursive=True), root]
        self.process.send_signal(number)
        try:
            return self.process.wait(STOP_TIMEOUT)
        finally:
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self.process.wait()


def start_server(
    log: Path | None = None,
    *,
    environment: dict[str, str] | None = None,
    directory: Path | None = None,
    **settings: str,
) -> Server:
    """Start `rehue serve` on free ports, without waiting for it.

    Args:
        log: file for its output; None: no output is kept.
        environment: variables beside this process's own.
        directory: to start it in; None: this process's own.
        settings: of `rehue_serve.settings`, for example ``triton_urls="127.0.0.1:8001"``.
    """
    ports = dict(zip(("http", "grpc", "metrics"), claim_free_ports(3), strict=True))
    variables = {f"REHUE_{name.upper()}_PORT": str(port) for name, port in ports.items()}
    variables |= {f"REHUE_{name.upper()}": value for name, value in settings.items()}
    with (log or Path(os.devnull)).open("wb") as output:
        process = subprocess.Popen(
            processes.bind_to_parent([Path(sys.executable).parent / "rehue", "serve"]),
            env=os.environ | variables | (environment or {}),
            cwd=directory,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Server(process, ports, log)


@contextlib.contextmanager
def run_server(
    log: Path | None = None,
    *,
    environment: dict[str, str] | None = None,
    directory: Path | None = None,
    **settings: str,
) -> Iterator[Server]:
    """Run `rehue serve`: ready inside the block, stopped after it; see `start_server`.

    Raises:
        ServerFailed: it ended, or was not ready in time.
    """
    server = start_server(log, environment=environment, directory=directory, **settings)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


def wait_for_answer(
    url: str,
    process: subprocess.Popen[bytes],
    *,
    log: Path | None = None,
    while_waiting: Callable[[], None] = lambda: None,
) -> None:
    """Wait until the URL answers 200.

    Raises:
        ServerFailed: the process ended, or START_TIMEOUT passed.
    """
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            if answer.status == 200:
                return
        while_waiting()
        time.sleep(0.2)
    raise ServerFailed(_describe_failure(process, log))


def _describe_failure(process: subprocess.Popen[bytes], log: Path | None) -> str:
    code = process.poll()
    fate = f"was not ready after {START_TIMEOUT:.0f} s" if code is None else f"ended with {code}"
    lines = log.read_text(errors="replace").splitlines()[-40:] if log else []
    return "\n".join([f"{process.args!r} {fate}", *lines])
