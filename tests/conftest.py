"""Markers by folder, options, and fixtures: real servers shared by all tests."""

import contextlib
import io
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from paths import MODELS, PHOTOS, ROOT
from PIL import Image
from proxy import Proxy
from systems import System

from rehue_serve.embedded import EmbeddedTriton
from rehue_serve.testing.servers import Server, run_server
from rehue_serve.testing.tritons import SleepingTriton

if TYPE_CHECKING:
    from proxied import Proxied

pytest_plugins = ("client_calls", "cluster", "colorize_runs")  # fixtures that several files share

TESTS = ROOT / "tests"
MAX_BYTES = 32 * 2**20  # of the servers: tests send more than it
TIERS = ("unit", "system", "k8s", "training")  # folders of tests, and markers


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="faults, overload and fuzz in full length")
    parser.addoption("--soak-seconds", type=float, default=20.0, help="length of the soak")


def pytest_configure(config: pytest.Config) -> None:
    for tier in TIERS:
        config.addinivalue_line("markers", f"{tier}: the tests of tests/{tier}")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip the other tiers' files with ``-m TIER``: importing them takes most of a minute."""
    tier, chosen = _get_tier(collection_path), config.option.markexpr
    return True if tier and chosen in TIERS and chosen != tier else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the name of its folder."""
    for item in items:
        if tier := _get_tier(item.path):
            item.add_marker(tier)


def _get_tier(path: Path) -> str:
    parts = path.relative_to(TESTS).parts if path.is_relative_to(TESTS) else ()
    return parts[0] if parts and parts[0] in TIERS else ""


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether to run the long forms of the tests."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(scope="session", autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Fail if a process that the tests started is still running at the end."""
    # Every process that the tests start inherits the mark, orphans included.
    mark = f"{os.getpid()}-{time.time()}"
    os.environ["REHUE_TESTS"] = mark
    yield
    left = [process for process in psutil.process_iter() if _has_mark(process, mark)]
    for process in left:
        process.kill()
    assert not left


def _has_mark(process: psutil.Process, mark: str) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get("REHUE_TESTS") == mark
    except psutil.Error:
        return False


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`rehue serve` with the committed models."""
    log = tmp_path_factory.mktemp("server") / "log"
    with run_server(log, max_bytes=str(MAX_BYTES)) as running:
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
    """`rehue serve` on Tritons whose networks sleep. Tests undo what they break."""
    log = tmp_path_factory.mktemp("system") / "log"
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with contextlib.closing(Proxy(sleepers[1].grpc_port)) as proxy:
        urls = f"{sleepers[0].url},{proxy.url}"
        with run_server(
            log,
            environment=environment,
            triton_urls=urls,
            replicas="2",
            max_requests="32",
            max_bytes=str(MAX_BYTES),
        ) as server:
            yield System(server, sleepers, proxy, environment | {"REHUE_TRITON_URLS": urls})


@pytest.fixture(scope="session")
def triton() -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(MODELS) as running:
        yield running


@pytest.fixture
def photo() -> bytes:
    return (PHOTOS / "skimage_astronaut.jpg").read_bytes()


# HAProxy in front of stand-ins for replicas. Imported late: Ray's modules take seconds.


@pytest.fixture(scope="session")
def replica_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replica") / "log"


@pytest.fixture(scope="session")
def http_port(replica_log: Path) -> Iterator[int]:
    from proxied import run_http_replica

    with run_http_replica(replica_log) as port:
        yield port


@pytest.fixture(scope="session")
def grpc_port() -> Iterator[int]:
    from proxied import run_grpc_replica

    with run_grpc_replica() as port:
        yield port


@pytest.fixture(scope="session")
def proxied(
    tmp_path_factory: pytest.TempPathFactory, http_port: int, grpc_port: int, replica_log: Path
) -> "Iterator[Proxied]":
    from proxied import run_haproxy

    with run_haproxy(
        tmp_path_factory.mktemp("haproxy"),
        servers=[http_port],
        grpc_servers=[grpc_port],
        log_file=replica_log,
    ) as running:
        yield running


@pytest.fixture(scope="session")
def small() -> bytes:
    """A photograph of 256 x 256, so that the load generator costs little."""
    out = io.BytesIO()
    Image.open(PHOTOS / "skimage_astronaut.jpg").resize((256, 256)).save(out, "JPEG")
    return out.getvalue()
