"""Real servers for the tests: an embedded Triton, and the whole of ``rehue serve``."""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
from tritons import SleepingTriton, Wire

from rehue_serve import processes
from rehue_serve.embedded import EmbeddedTriton
from rehue_serve.ports import claim_free_ports

ROOT = Path(__file__).parents[1]
PHOTOS = Path(__file__).parent / "photos"
MODELS = ROOT / "model_repository"
START_TIMEOUT = 180.0  # seconds; a busy machine takes most of a minute


@dataclass
class Server:
    """``rehue serve`` in a process of its own."""

    process: subprocess.Popen[str]
    ports: dict[str, int]
    log: Path

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['http']}"

    @property
    def grpc_url(self) -> str:
        return f"grpc://127.0.0.1:{self.ports['grpc']}"

    def wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(httpx.HTTPError):
                ready = httpx.get(f"{self.http_url}/readyz", timeout=5).status_code == 200
                # The greeting comes a moment later.
                if ready and "Stop: Ctrl-C" in self.log.read_text():
                    return
            time.sleep(0.2)
        raise AssertionError(f"rehue serve did not start:\n{self.log.read_text()}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stops it as a user would; kills what is left by its own pid."""
        if self.process.poll() is not None:  # it ended by itself
            return self.process.returncode
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(number)
        try:
            return self.process.wait(60)
        finally:
            for left in [*children, self.process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    left.kill()


def start_server(
    log: Path, *, environment: dict[str, str] | None = None, **settings: str
) -> Server:
    """``settings`` without their ``REHUE_``; ``environment`` for what is not ours."""
    ports = dict(zip(("http", "grpc", "metrics"), claim_free_ports(3), strict=True))
    variables = {f"REHUE_{name.upper()}_PORT": str(port) for name, port in ports.items()}
    variables |= {f"REHUE_{name.upper()}": value for name, value in settings.items()}
    with log.open("w") as out:
        process = subprocess.Popen(
            processes.bind_to_parent([Path(sys.executable).parent / "rehue", "serve"]),
            env=os.environ | variables | (environment or {}),
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    return Server(process, ports, log)


def kill_all(node: psutil.Process) -> None:
    """A Ray node's processes, all at once, as when its power fails."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [node, *node.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def ask_ray(address: str, call: str, request: bytes, token: str) -> bytes:
    """Calls one of Ray's gRPC ports as whoever has this token; without one where it is empty.

    Raises:
        grpc.RpcError: UNAUTHENTICATED where Ray asks for another.
    """
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(address) as channel:
        answer: bytes = channel.unary_unary(call)(request, metadata=metadata, timeout=30)
    return answer


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="faults, overload and fuzz in full length")
    parser.addoption("--soak-seconds", type=float, default=20.0, help="length of the soak")


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the long forms of the tests are wanted."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_running() -> Iterator[None]:
    """No server outlives the tests, nor what a killed server leaves behind."""
    # Every process that these tests start inherits the mark, orphans included.
    mark = f"{os.getpid()}-{time.time()}"
    os.environ["REHUE_TESTS"] = mark
    yield
    left = [process for process in psutil.process_iter() if _marked(process, mark)]
    for process in left:
        process.kill()
    assert not left


def _is(process: psutil.Process, title: str) -> bool:
    try:
        alive = process.status() != psutil.STATUS_ZOMBIE
        return alive and title in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def _marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get("REHUE_TESTS") == mark
    except psutil.Error:
        return False


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The whole system, with the committed models, for all tests together."""
    running = start_server(tmp_path_factory.mktemp("server") / "log")
    try:
        running.wait()
        yield running
    finally:
        running.stop()


@dataclass
class System:
    """Two replicas on two Tritons whose networks sleep, the second behind a wire to cut."""

    server: Server
    tritons: list[SleepingTriton]
    wire: Wire
    environment: dict[str, str]  # for commands that join its Ray

    @property
    def urls(self) -> list[str]:
        return [self.server.grpc_url, self.server.http_url]

    def processes(self, title: str = "") -> list[psutil.Process]:
        """Its processes with this in their command lines."""
        found = [psutil.Process(one.pid) for one in (self.server.process, *self.tritons)]
        found += [child for one in found for child in one.children(recursive=True)]
        return [one for one in found if _is(one, title)]

    def replicas(self) -> set[int]:
        return {one.pid for one in self.processes("ray::ServeReplica")}


@pytest.fixture(scope="session")
def sleepers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[SleepingTriton]]:
    """Two Tritons whose networks sleep."""
    directory = tmp_path_factory.mktemp("tritons")
    tritons = [SleepingTriton(directory / name) for name in ("first", "second")]
    with tritons[0], tritons[1]:
        yield tritons


@pytest.fixture(scope="session")
def system(
    tmp_path_factory: pytest.TempPathFactory, sleepers: list[SleepingTriton]
) -> Iterator[System]:
    """The whole system on Tritons that leave the cores to it; tests put back what they break."""
    log = tmp_path_factory.mktemp("system") / "log"
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with contextlib.closing(Wire(sleepers[1].grpc_port)) as wire:
        urls = f"{sleepers[0].url},{wire.url}"
        settings = {"triton_urls": urls, "replicas": "2", "max_requests": "32"}
        server = start_server(log, environment=environment, **settings)
        try:
            server.wait()
            yield System(server, sleepers, wire, environment | {"REHUE_TRITON_URLS": urls})
        finally:
            server.stop()


@pytest.fixture(scope="session")
def triton() -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(MODELS) as running:
        yield running


@pytest.fixture
def photo() -> bytes:
    return (PHOTOS / "skimage_astronaut.jpg").read_bytes()
