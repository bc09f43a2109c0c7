"""An upgrade as a gateway sees it: Envoy in front of two clusters, the Service moves to the second.

KubeRay moves the Service `rehue` to the second Ray cluster in one step and deletes the first one
later. Envoy Gateway gives the new endpoints to Envoy, as this test does through a file. Scripted
servers stand in for the clusters.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from load import Load

from rehue_serve.ports import claim_free_ports
from rehue_serve.testing.scripted import Delay, ScriptedServer, serve

ENVOY = Path(sys.prefix) / "helm" / "bin" / "envoy"
PROTOCOLS = ("http", "grpc")
TYPE = "type.googleapis.com/envoy"
SECONDS = 0.3  # of a photograph


def build_configuration(folder: Path, ports: dict[str, int]) -> dict[str, Any]:
    """Build Envoy's configuration: a listener and a cluster for each protocol."""
    http2 = {
        f"{TYPE.partition('/')[2]}.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    return {
        "node": {"id": "test", "cluster": "test"},
        "static_resources": {
            "listeners": [_build_listener(protocol, ports[protocol]) for protocol in PROTOCOLS],
            "clusters": [
                {
                    "name": protocol,
                    "type": "EDS",
                    "eds_cluster_config": {
                        "eds_config": {
                            "resource_api_version": "V3",
                            "path_config_source": {
                                "path": str(folder / f"{protocol}.json"),
                                "watched_directory": {"path": str(folder)},
                            },
                        }
                    },
                }
                | ({"typed_extension_protocol_options": http2} if protocol == "grpc" else {})
                for protocol in PROTOCOLS
            ],
        },
    }


def _build_listener(protocol: str, port: int) -> dict[str, Any]:
    extensions = f"{TYPE}.extensions.filters.http.router.v3.Router"
    manager = {
        "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": protocol,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": protocol}}],
                }
            ]
        },
        "http_filters": [{"name": "router", "typed_config": {"@type": extensions}}],
    }
    return {
        "name": protocol,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def point_service_to(folder: Path, server: ScriptedServer) -> None:
    """Make a server the only endpoint of both protocols, each in one step."""
    for protocol, url in zip(PROTOCOLS, (server.http_url, server.grpc_url), strict=True):
        address = {"address": "127.0.0.1", "port_value": urlsplit(url).port}
        assignment = {
            "@type": f"{TYPE}.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": protocol,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": {"socket_address": address}}}]}
            ],
        }
        new = folder / f"{protocol}.new"
        new.write_text(json.dumps({"version_info": server.model, "resources": [assignment]}))
        new.rename(folder / f"{protocol}.json")


@contextlib.contextmanager
def run_envoy(folder: Path) -> Iterator[list[str]]:
    """Run Envoy; yields the URLs of its HTTP and its gRPC listener."""
    if not ENVOY.exists():
        asked = "Envoy is installed by `make test` and `make k8s` (requirements/helm.lock)"
        assert "CI" not in os.environ, asked
        pytest.skip(asked)
    ports = dict(zip(PROTOCOLS, claim_free_ports(2), strict=True))
    configuration = folder / "envoy.json"
    configuration.write_text(json.dumps(build_configuration(folder, ports)))
    with (folder / "log").open("w") as log:
        envoy = subprocess.Popen(
            [ENVOY, "--config-path", configuration, "--use-dynamic-base-id", "--concurrency", "1",
             "--log-level", "warning"],
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not _is_ready(f"http://127.0.0.1:{ports['http']}/readyz"):
            assert envoy.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
        yield [f"{protocol}://127.0.0.1:{ports[protocol]}" for protocol in PROTOCOLS]
    finally:
        envoy.terminate()
        envoy.wait(30)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def delay(_: bytes) -> Delay:
    return Delay(SECONDS)


def upgrade(folder: Path, steps: Callable[[Callable[[], None], Callable[[], None]], None]) -> Load:
    """Run steps under load, which are given the Service's switch and the end of the first cluster.

    Returns:
        The load, without retries; all photographs after it went to the second cluster.
    """
    first, second = (ScriptedServer(always=delay, model=f"rehue/{n}") for n in (1, 2))
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(contextlib.ExitStack())
        running.enter_context(serve(first))
        stack.enter_context(serve(second))
        point_service_to(folder, first)
        urls = stack.enter_context(run_envoy(folder))
        with Load(urls, b"a photograph", rate=20) as load:
            time.sleep(2)
            steps(lambda: point_service_to(folder, second), running.close)
            time.sleep(2)
            before = len(first.requests)
            time.sleep(1)
        assert len(first.requests) == before > 20
        assert len(second.requests) > 20
    return load


def test_an_upgrade_loses_no_photograph(tmp_path: Path) -> None:
    def switch_then_end(switch: Callable[[], None], end: Callable[[], None]) -> None:
        switch()
        time.sleep(2)  # longer than a photograph takes, as rayClusterDeletionDelaySeconds is
        end()

    load = upgrade(tmp_path, switch_then_end)
    assert load.counts == {"ok": len(load.outcomes)}, set(map(str, load.errors))


def test_a_first_cluster_that_ends_before_the_switch_loses_some(tmp_path: Path) -> None:
    """So the test above would see a lost photograph."""

    def end_then_switch(switch: Callable[[], None], end: Callable[[], None]) -> None:
        end()
        time.sleep(1)
        switch()

    assert upgrade(tmp_path, end_then_switch).errors
