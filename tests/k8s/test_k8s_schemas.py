"""Every rendered object against Kubernetes' schemas and the custom resources' own.

An unknown kind is a failure, and so is an unknown field anywhere.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from manifest_schemas import list_problems
from rendered import OVERLAYS, objects, only


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_valid(overlay: str) -> None:
    found = {
        f"{one['kind']} {one['metadata']['name']}": told
        for one in objects(overlay)
        if (told := list_problems(one))
    }
    assert found == {}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_in_the_namespace(overlay: str) -> None:
    for one in objects(overlay):
        namespace = one["metadata"]["name" if one["kind"] == "Namespace" else "namespace"]
        assert namespace == "rehue", one["metadata"]


Break = Callable[[Any], Any]
BROKEN: dict[str, tuple[str, Break]] = {
    "a kind misspelt": ("Deployment", lambda one: one.update(kind="Deploymint")),
    "a field misspelt": ("Deployment", lambda one: one["spec"].update(replica=2)),
    "a pod's field": (
        "RayService",
        lambda one: one["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]
        .update(tolerate=[]),
    ),
    "a probe's field": (
        "RayService",
        lambda one: one["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
        ["containers"][0]["livenessProbe"].update(httpget={}),
    ),
    "Ray's field": ("RayService", lambda one: one["spec"].update(upgrade={})),
    "Ray's strategy": (
        "RayService", lambda one: one["spec"].update(upgradeStrategy={"type": "Rolling"})
    ),
    "Ray's autoscaler": (
        "RayService",
        lambda one: one["spec"]["rayClusterConfig"]["autoscalerOptions"]["resources"]
        .update(request={}),
    ),
    "KEDA's field": ("ScaledObject", lambda one: one["spec"].update(maxReplicas=2)),
    "a route's time": ("HTTPRoute", lambda one: one["spec"]["rules"][0].update(timeout="1s")),
    "a method's match": (
        "GRPCRoute", lambda one: one["spec"]["rules"][0]["matches"][0].update(path={})
    ),
    "a listener's TLS": (
        "Gateway", lambda one: one["spec"]["listeners"][0]["tls"].update(mode="Sometimes")
    ),
    "a body's limit": (
        "BackendTrafficPolicy", lambda one: one["spec"]["requestBuffer"].update(limit="33 MiB")
    ),
    "a rule's field": (
        "PrometheusRule", lambda one: one["spec"]["groups"][0]["rules"][0].update(alerts="x")
    ),
    "a monitor's port": (
        "PodMonitor", lambda one: one["spec"]["podMetricsEndpoints"][0].update(ports="x")
    ),
    "metadata": ("HTTPRoute", lambda one: one["metadata"].update(label={})),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_found(what: str) -> None:
    kind, broken = BROKEN[what]
    name = {"PodMonitor": "rehue-ray", "BackendTrafficPolicy": "rehue-http"}.get(kind, "")
    one = copy.deepcopy(only("production", kind, name))
    assert list_problems(one) == []
    broken(one)
    assert list_problems(one)
