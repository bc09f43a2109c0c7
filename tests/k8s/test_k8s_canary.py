"""A canary: a second installation with a new model gets a share of the requests."""

import os
from pathlib import Path

import pytest
import rendered
from manifest_schemas import list_problems
from pod_security import list_violations
from rendered import K8S, Object, get_object, list_objects, list_pod_templates, list_services
from server_side_apply import Cluster

from rehue_serve.settings import Settings


@pytest.fixture
def shared(tmp_path: Path) -> str:
    """An overlay: `production` with the component canary."""
    way = os.path.relpath(K8S, tmp_path.resolve())
    (tmp_path / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        f"resources: [{way}/overlays/production]\ncomponents: [{way}/components/canary]\n"
    )
    return str(tmp_path.resolve())


def list_routes(overlay: str) -> list[Object]:
    return [get_object(overlay, kind) for kind in ("HTTPRoute", "GRPCRoute")]


def test_the_second_installation_is_valid_and_apart() -> None:
    for manifest in rendered.render_overlay("canary"):
        assert list_problems(manifest) == []
        where = manifest["metadata"]["name" if manifest["kind"] == "Namespace" else "namespace"]
        assert where == "rehue-canary"
    assert {role: list_violations(pod) for role, pod in list_pod_templates("canary").items()} == {
        role: [] for role in ("ray-head", "ray-worker", "triton")
    }
    # The alerts are the first installation's, and its dashboard shows this one too.
    assert list_objects("canary", "PrometheusRule") == []
    assert not [
        manifest
        for manifest in list_objects("canary", "ConfigMap")
        if "dashboard" in str(manifest["metadata"])
    ]


def test_it_serves_another_model_and_one_of_each() -> None:
    given = rendered.read_settings("canary")
    assert given["REHUE_MODEL"] not in ("", Settings.model_fields["model"].default)
    (group,) = get_object("canary", "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert int(given["REHUE_REPLICAS"]) == group["replicas"] == group["maxReplicas"] == 1
    assert get_object("canary", "Deployment")["spec"]["replicas"] == 1
    assert given | {"REHUE_MODEL": "", "REHUE_REPLICAS": ""} == rendered.read_settings("gpu") | {
        "REHUE_MODEL": "", "REHUE_REPLICAS": "",
    }  # fmt: skip


def test_the_weights_lead_to_both(shared: str) -> None:
    for route in list_routes(shared):
        first, second = route["spec"]["rules"][0]["backendRefs"]
        (before,) = get_object("production", route["kind"])["spec"]["rules"][0]["backendRefs"]
        assert before.items() <= first.items()
        assert second == first | {"namespace": "rehue-canary", "weight": second["weight"]}
        assert first["weight"] + second["weight"] == 100
    shares = {
        route["spec"]["rules"][0]["backendRefs"][1]["weight"] for route in list_routes(shared)
    }
    assert len(shares) == 1, "HTTP and gRPC share alike"


def test_the_other_namespace_lets_the_routes_and_the_gateway_in(shared: str) -> None:
    grant = get_object("canary", "ReferenceGrant")["spec"]
    asked = {(route["kind"], route["metadata"]["namespace"]) for route in list_routes(shared)}
    assert {(source["kind"], source["namespace"]) for source in grant["from"]} == asked
    (target,) = grant["to"]
    services = [manifest["metadata"]["name"] for manifest in list_services("canary")]
    assert (target["kind"], target["name"] in services) == ("Service", True)
    policies = {overlay: _get_gateway(overlay) for overlay in ("canary", "production")}
    assert policies["canary"] == policies["production"]


def _get_gateway(overlay: str) -> Object:
    (found,) = [
        o for o in list_objects(overlay, "NetworkPolicy") if o["metadata"]["name"] == "gateway"
    ]
    spec: Object = found["spec"]
    return spec


def test_both_are_applied_side_by_side(shared: str) -> None:
    cluster = Cluster()
    for overlay in ("production", "canary", shared):
        for manifest in rendered.render_overlay(overlay):
            cluster.apply(manifest, "kubectl")
    assert {space for _, _, space, _ in cluster.objects if space} == {"rehue", "rehue-canary"}
