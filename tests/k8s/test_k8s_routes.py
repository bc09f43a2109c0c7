"""Routes and policies of the gateway against the application's paths, RPCs and limits."""

from pathlib import Path
from typing import Any

import pytest
from admission import parse_quantity
from cluster import load_settings
from grpc_health.v1 import health_pb2
from rendered import (
    Object,
    get_object,
    list_objects,
    list_services,
)

from rehue_client.v1 import rehue_pb2
from rehue_serve import endpoints, http, triton
from rehue_serve.service import Service
from rehue_serve.settings import Settings


def test_routes_are_the_applications() -> None:
    (route,) = list_objects("production", "HTTPRoute")
    (rule,) = route["spec"]["rules"]
    matches = [
        (route_match["path"]["type"], route_match["path"]["value"])
        for route_match in rule["matches"]
    ]
    found = endpoints.Endpoints((), model="rehue", limit=1)
    service = Service(Settings(), triton.TritonClient(found, default_model="rehue"))
    routes: Any = http.build_http_app(service).routes
    paths = {served.path for served in routes if "oauth2" not in served.path}
    covered = {
        path
        for path in paths
        for kind, value in matches
        if path == value or (kind == "PathPrefix" and path.startswith(f"{value}/"))
    }
    assert covered == paths
    for kind, value in matches:
        assert value in paths or kind == "PathPrefix", value
    assert not any(value.startswith("/-") for _, value in matches)


def test_the_gateway_waits_longer_than_the_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = load_settings("production", monkeypatch, tmp_path)
    (rule,) = get_object("production", "HTTPRoute")["spec"]["rules"]
    assert int(rule["timeouts"]["request"].removesuffix("s")) > settings.timeout
    # None for gRPC, whose streams last longer than a photograph.
    (policy,) = list_policies("GRPCRoute")
    assert policy["timeout"]["http"]["requestTimeout"] == "0s"


def test_the_gateway_takes_what_the_server_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = load_settings("production", monkeypatch, tmp_path).max_bytes
    (policy,) = list_policies("HTTPRoute")
    # With the 64 KiB of a form's own; not much more, which the server would refuse anyway.
    assert limit + 64 * 1024 < parse_quantity(policy["requestBuffer"]["limit"]) < 1.1 * limit
    assert "requestBuffer" not in list_policies("GRPCRoute")[0]


def list_policies(kind: str) -> list[Object]:
    """Return Envoy Gateway's policies for a kind of route; each has to name one that exists."""
    found = [manifest["spec"] for manifest in list_objects("production", "BackendTrafficPolicy")]
    name = get_object("production", kind)["metadata"]["name"]
    return [manifest for manifest in found if [(kind, name)] == [
        (ref["kind"], ref["name"]) for ref in manifest["targetRefs"]]]  # fmt: skip


def test_rpcs_are_the_servers() -> None:
    (rule,) = get_object("production", "GRPCRoute")["spec"]["rules"]
    routed = {route_match["method"]["service"] for route_match in rule["matches"]}
    assert routed == {
        service.full_name
        for file in (rehue_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR)
        for service in file.services_by_name.values()
    }


def test_routes_lead_somewhere() -> None:
    (gateway,) = list_objects("production", "Gateway")
    listeners = {
        found_listener["name"]: found_listener for found_listener in gateway["spec"]["listeners"]
    }
    services = {manifest["metadata"]["name"]: manifest for manifest in list_services("production")}
    for kind in ("HTTPRoute", "GRPCRoute"):
        spec = get_object("production", kind)["spec"]
        (parent,) = spec["parentRefs"]
        listener = listeners[parent["sectionName"]]
        assert parent["name"] == gateway["metadata"]["name"]
        assert spec["hostnames"] == [listener["hostname"]]
        assert {"kind": kind} in listener["allowedRoutes"]["kinds"]
        assert listener["tls"]["mode"] == "Terminate"
        (backend,) = spec["rules"][0]["backendRefs"]
        offered = [port["port"] for port in services[backend["name"]]["spec"]["ports"]]
        assert backend["port"] in offered
