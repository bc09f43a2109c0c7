"""Real servers for the tests: an embedded Triton, and the whole of ``rehue serve``."""

import contextlib
import os
import secrets
import time
from collections.abc import Iterator

import psutil
import pytest
from paths import MODELS, PHOTOS
from proxy import Proxy
from systems import System

from rehue_serve.embedded import EmbeddedTriton
from rehue_serve.testing.servers import Server, run_server
from rehue_serve.testing.tritons import SleepingTriton


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


def _marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get("REHUE_TESTS") == mark
    except psutil.Error:
        return False


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The whole system, with the committed models, for all tests together."""
    with run_server(tmp_path_factory.mktemp("server") / "log") as running:
        yield running


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
    with contextlib.closing(Proxy(sleepers[1].grpc_port)) as proxy:
        urls = f"{sleepers[0].url},{proxy.url}"
        with run_server(
            log, environment=environment, triton_urls=urls, replicas="2", max_requests="32"
        ) as server:
            yield System(server, sleepers, proxy, environment | {"REHUE_TRITON_URLS": urls})


@pytest.fixture(scope="session")
def triton() -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(MODELS) as running:
        yield running


@pytest.fixture
def photo() -> bytes:
    return (PHOTOS / "skimage_astronaut.jpg").read_bytes()
