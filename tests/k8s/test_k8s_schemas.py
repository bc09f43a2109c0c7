"""Every rendered object against Kubernetes' schemas and the custom resources' own.

An unknown kind is a failure, and so is an unknown field anywhere.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from manifest_schemas import list_problems
from rendered import K8S, OVERLAYS, get_object, render_overlay


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_valid(overlay: str) -> None:
    found = {
        f"{manifest['kind']} {manifest['metadata']['name']}": output
        for manifest in render_overlay(overlay)
        if (output := list_problems(manifest))
    }
    assert found == {}


def test_the_examples_node_pools_are_valid() -> None:
    pools = list(yaml.safe_load_all((K8S / "examples" / "karpenter.yaml").read_text()))
    assert [list_problems(pool) for pool in pools] == [[], []]
    pools[0]["spec"]["template"]["spec"]["requirements"][0]["operator"] = "OneOf"
    assert list_problems(pools[0])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_in_the_namespace(overlay: str) -> None:
    for manifest in render_overlay(overlay):
        namespace = manifest["metadata"]["name" if manifest["kind"] == "Namespace" else "namespace"]
        assert namespace == "rehue", manifest["metadata"]


Break = Callable[[Any], Any]
BROKEN: dict[str, tuple[str, Break]] = {
    "a kind misspelt": ("Deployment", lambda manifest: manifest.update(kind="Deploymint")),
    "a field misspelt": ("Deployment", lambda manifest: manifest["spec"].update(replica=2)),
    "a pod's field": (
        "RayService",
        lambda manifest: manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"][
            "spec"
        ].update(tolerate=[]),
    ),
    "a probe's field": (
        "RayService",
        lambda manifest: manifest["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"][
            "containers"
        ][0]["livenessProbe"].update(httpget={}),
    ),
    "Ray's field": ("RayService", lambda manifest: manifest["spec"].update(upgrade={})),
    "Ray's strategy": (
        "RayService",
        lambda manifest: manifest["spec"].update(upgradeStrategy={"type": "Rolling"}),
    ),
    "Ray's autoscaler": (
        "RayService",
        lambda manifest: manifest["spec"]["rayClusterConfig"]["autoscalerOptions"][
            "resources"
        ].update(request={}),
    ),
    "KEDA's field": ("ScaledObject", lambda manifest: manifest["spec"].update(maxReplicas=2)),
    "a route's time": (
        "HTTPRoute",
        lambda manifest: manifest["spec"]["rules"][0].update(timeout="1s"),
    ),
    "a method's match": (
        "GRPCRoute",
        lambda manifest: manifest["spec"]["rules"][0]["matches"][0].update(path={}),
    ),
    "a listener's TLS": (
        "Gateway",
        lambda manifest: manifest["spec"]["listeners"][0]["tls"].update(mode="Sometimes"),
    ),
    "a body's limit": (
        "BackendTrafficPolicy",
        lambda manifest: manifest["spec"]["requestBuffer"].update(limit="33 MiB"),
    ),
    "a rule's field": (
        "PrometheusRule",
        lambda manifest: manifest["spec"]["groups"][0]["rules"][0].update(alerts="x"),
    ),
    "a monitor's port": (
        "PodMonitor",
        lambda manifest: manifest["spec"]["podMetricsEndpoints"][0].update(ports="x"),
    ),
    "metadata": ("HTTPRoute", lambda manifest: manifest["metadata"].update(label={})),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_found(what: str) -> None:
    kind, broken = BROKEN[what]
    name = {"PodMonitor": "rehue-ray", "BackendTrafficPolicy": "rehue-http"}.get(kind, "")
    manifest = copy.deepcopy(get_object("production", kind, name))
    assert list_problems(manifest) == []
    broken(manifest)
    assert list_problems(manifest)
