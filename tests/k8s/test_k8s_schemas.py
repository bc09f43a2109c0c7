"""Every rendered object against Kubernetes' schemas and the custom resources' own.

An unknown kind is a failure, and so is an unknown field anywhere.
"""

import copy
import json
from collections.abc import Callable
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from rendered import K8S, OVERLAYS, Object, objects, only

KUBERNETES = "1.37"


def problems(one: Object) -> list[str]:
    """What an API server would refuse."""
    try:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return _custom(one)
    except kubernetes_validate.ValidationError as error:
        return [f"{list(error.path)}: {error.message}"]
    return []


def _custom(one: Object) -> list[str]:
    schema = K8S / "schemas" / f"{one['kind'].lower()}.json"
    if not schema.is_file():
        return [f"unknown kind {one['apiVersion']} {one['kind']}"]
    checker = jsonschema.Draft7Validator(json.loads(schema.read_text()))
    found = [f"{list(error.path)}: {error.message}" for error in checker.iter_errors(one)]
    found += problems({"apiVersion": "v1", "kind": "ConfigMap", "metadata": one["metadata"]})
    if not found and one["kind"] == "RayService":
        found += _ray_pods(one["spec"]["rayClusterConfig"])
    return found


def _ray_pods(cluster: Object) -> list[str]:
    """The schema of a RayService leaves pods and containers to Kubernetes' own."""
    templates = [cluster["headGroupSpec"]["template"]]
    templates += [group["template"] for group in cluster["workerGroupSpecs"]]
    autoscaler = cluster.get("autoscalerOptions", {})
    known = ("resources", "securityContext", "env", "envFrom", "volumeMounts")
    container = {key: autoscaler[key] for key in known if key in autoscaler}
    templates.append(
        {"metadata": {}, "spec": {"containers": [{"name": "autoscaler", **container}]}}
    )
    pods = [{"apiVersion": "v1", "kind": "Pod", **template} for template in templates]
    return [problem for pod in pods for problem in problems(pod)]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_valid(overlay: str) -> None:
    found = {
        f"{one['kind']} {one['metadata']['name']}": told
        for one in objects(overlay)
        if (told := problems(one))
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
    assert problems(one) == []
    broken(one)
    assert problems(one)
