"""Envoy as a cluster's gateway: its endpoints are those of a Service, given through files."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from rehue_serve.ports import claim_free_ports

ENVOY = Path(sys.prefix) / "helm" / "bin" / "envoy"
PROTOCOLS = ("http", "grpc")
TYPE = "type.googleapis.com/envoy"
# As the worker pods' readinessProbe, but each second.
PROBE = {
    "timeout": "1s",
    "interval": "1s",
    "no_traffic_interval": "1s",
    "unhealthy_threshold": 2,
    "healthy_threshold": 1,
    "http_health_check": {"path": "/-/healthz"},
}


def build_configuration(folder: Path, ports: dict[str, int], *, probed: bool) -> dict[str, Any]:
    """Build Envoy's configuration: a listener and a cluster for each protocol.

    Args:
        probed: endpoints are used while their HTTP port's probes succeed, as a Service's are.
    """
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
                    "health_checks": [PROBE] if probed else [],
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


def point_service_to(folder: Path, version: str, addresses: Mapping[str, Sequence[str]]) -> None:
    """Give each protocol its endpoints, ``HOST:PORT``, in one step."""
    for protocol in PROTOCOLS:
        assignment = {
            "@type": f"{TYPE}.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": protocol,
            "endpoints": [
                {
                    "lb_endpoints": [
                        {"endpoint": _build_endpoint(*pair)}
                        for pair in zip(addresses[protocol], addresses["http"], strict=True)
                    ]
                }
            ],
        }
        new = folder / f"{protocol}.new"
        new.write_text(json.dumps({"version_info": version, "resources": [assignment]}))
        new.rename(folder / f"{protocol}.json")


def _build_endpoint(address: str, probed: str) -> dict[str, Any]:
    host, _, port = address.partition(":")
    return {
        "address": {"socket_address": {"address": host, "port_value": int(port)}},
        "health_check_config": {"port_value": int(probed.partition(":")[2])},
    }


@contextlib.contextmanager
def run_envoy(folder: Path, *, probed: bool = False) -> Iterator[list[str]]:
    """Run Envoy; yields the URLs of its HTTP and its gRPC listener when one endpoint is ready."""
    if not ENVOY.exists():
        asked = "Envoy is installed by `make test` and `make k8s` (requirements/helm.lock)"
        assert "CI" not in os.environ, asked
        pytest.skip(asked)
    ports = dict(zip(PROTOCOLS, claim_free_ports(2), strict=True))
    configuration = folder / "envoy.json"
    configuration.write_text(json.dumps(build_configuration(folder, ports, probed=probed)))
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
