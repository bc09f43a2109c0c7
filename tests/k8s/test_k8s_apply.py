"""kubectl's own server-side apply of every overlay, to an API that refuses what a cluster would."""

import copy
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apiserver
import pytest
from admission import find_pod_templates
from rendered import K8S, KUBECTL, Object, get_object, render_overlay
from server_side_apply import Cluster, Refused


class Api:
    """A cluster and the kubectl that talks to it."""

    def __init__(self, home: Path) -> None:
        self.cluster = Cluster()
        self.server = apiserver.start_server(self.cluster)
        self._home = home

    def apply(self, *words: str) -> "subprocess.CompletedProcess[str]":
        host, port = self.server.server_address[:2]
        return subprocess.run(
            [KUBECTL, f"--server=http://{host!s}:{port}", "apply", "--server-side",
             "--validate=strict", *words], capture_output=True, text=True, timeout=120,
            env={"HOME": str(self._home), "KUBECONFIG": "/dev/null"},
        )  # fmt: skip


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with serve_api(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A cluster that production was applied to, shared by all tests."""
    with serve_api(tmp_path_factory.mktemp("home")) as made:
        apply_overlay(made, "production")
        yield made


@contextmanager
def serve_api(home: Path) -> Iterator[Api]:
    made = Api(home)
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()


def apply_overlay(api: Api, overlay: str) -> None:
    done = api.apply("-k", str(K8S / "overlays" / overlay))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("serverside-applied") == len(render_overlay(overlay))


def list_applied_names(api: Api) -> set[tuple[str, str]]:
    return {(kind, name) for _, kind, _, name in api.cluster.objects if name != "default"}


def list_rendered_names(overlay: str) -> set[tuple[str, str]]:
    return {
        (manifest["kind"], manifest["metadata"]["name"]) for manifest in render_overlay(overlay)
    }


def test_a_trial_is_applied_and_applied_again(api: Api) -> None:
    for _ in range(2):
        apply_overlay(api, "cpu")
    assert list_applied_names(api) == list_rendered_names("cpu")


def test_production_comes_to_a_service_that_runs(api: Api) -> None:
    """Adds the gateway, KEDA and the rest; nothing immutable changes, nothing is deleted."""
    for overlay in ("gpu", "gpu", "production"):
        before = list_applied_names(api)
        apply_overlay(api, overlay)
        assert list_applied_names(api) == before | list_rendered_names(overlay)


def test_production_is_applied_again_and_a_canary_beside_it(production: Api) -> None:
    apply_overlay(production, "production")
    assert list_applied_names(production) == list_rendered_names("production")
    apply_overlay(production, "canary")
    assert {("Namespace", "rehue"), ("Namespace", "rehue-canary")} < list_applied_names(production)


def apply_scale(overlay: str, replicas: int) -> Object:
    """What KEDA's autoscaler applies to the Tritons."""
    target = get_object(overlay, "Deployment")
    whole = copy.deepcopy(target)
    whole["spec"]["replicas"] = replicas
    return whole


def test_an_apply_does_not_fight_with_the_autoscaler() -> None:
    """production leaves the number of Tritons to KEDA; applying gpu, which sets it, conflicts."""
    given, cluster = get_object("production", "Deployment"), Cluster()
    cluster.apply(get_object("production", "Namespace"), "kubectl")
    cluster.apply(given, "kubectl")
    cluster.apply(apply_scale("production", 5), "keda")
    cluster.apply(given, "kubectl")
    with pytest.raises(Refused, match=r'conflict with "keda": spec\.replicas'):
        cluster.apply(get_object("gpu", "Deployment"), "kubectl")


Break = Callable[[Any], Any]


def _get_container(manifest: Object) -> Any:
    return find_pod_templates(manifest)[0]["spec"]["containers"][0]


BROKEN: dict[str, tuple[str, Break, str]] = {
    "a field": ("Deployment", lambda manifest: manifest["spec"].update(replica=2), "replica"),
    "a kind": (
        "Deployment",
        lambda manifest: manifest.update(kind="Deploymint"),
        "no matches for kind",
    ),
    "a namespace": (
        "ConfigMap",
        lambda manifest: manifest["metadata"].update(namespace="elsewhere"),
        "not found",
    ),
    "a selector": (
        "Deployment",
        lambda manifest: manifest["spec"]["selector"]["matchLabels"].update(app="other"),
        "does not match",
    ),
    "an immutable field": (
        "Deployment",
        lambda manifest: manifest["spec"]["selector"]["matchLabels"].pop("role"),
        "immutable",
    ),
    "a port twice": (
        "Deployment",
        lambda manifest: _get_container(manifest)["ports"].append(
            {"containerPort": 8001, "name": "again"}
        ),
        "duplicate entries",
    ),
    "a port's name twice": (
        "RayService",
        lambda manifest: _get_container(manifest)["ports"].append(
            {"containerPort": 1, "name": "serve"}
        ),
        "names of ports",
    ),
    "a volume": (
        "Deployment",
        lambda manifest: _get_container(manifest)["volumeMounts"][0].update(name="gone"),
        "gone not found",
    ),
    "a probe's port": (
        "RayService",
        lambda manifest: _get_container(manifest)["readinessProbe"]["httpGet"].update(
            port="nowhere"
        ),
        "no port nowhere",
    ),
    "a request over its limit": (
        "Deployment",
        lambda manifest: _get_container(manifest)["resources"]["requests"].update(memory="9Gi"),
        "at most its limit",
    ),
    "half a GPU": (
        "Deployment",
        lambda manifest: _get_container(manifest)["resources"]["limits"].update(
            {"nvidia.com/gpu": 2}
        ),
        "must equal its limit",
    ),
    "a long goodbye": (
        "Deployment",
        lambda manifest: _get_container(manifest)["lifecycle"]["preStop"]["sleep"].update(
            seconds=91
        ),
        "grace period",
    ),
    "a label": (
        "Service",
        lambda manifest: manifest["metadata"]["labels"].update(app="no spaces"),
        "labels",
    ),
    "a name": (
        "Service",
        lambda manifest: manifest["metadata"].update(name="Rehue"),
        "metadata.name",
    ),
    "listeners alike": (
        "Gateway",
        lambda manifest: manifest["spec"]["listeners"][1].update(hostname="rehue.example.com"),
        "must be unique",
    ),
    "TLS passed through": (
        "Gateway",
        lambda manifest: manifest["spec"]["listeners"][0]["tls"].update(mode="Passthrough"),
        "must be Terminate",
    ),
    "a route's times": (
        "HTTPRoute",
        lambda manifest: manifest["spec"]["rules"][0]["timeouts"].update(request="60s"),
        "cannot be longer",
    ),
    "a route's path": (
        "HTTPRoute",
        lambda manifest: manifest["spec"]["rules"][0]["matches"][0]["path"].update(
            value="/v1/../x"
        ),
        "path /v1/../x",
    ),
    "a route's parents": (
        "HTTPRoute",
        lambda manifest: manifest["spec"]["parentRefs"].append(manifest["spec"]["parentRefs"][0]),
        "must be unique",
    ),
    "an RPC's service": (
        "GRPCRoute",
        lambda manifest: manifest["spec"]["rules"][0]["matches"][0]["method"].update(service="a/b"),
        "service a/b",
    ),
    "a weight": (
        "GRPCRoute",
        lambda manifest: manifest["spec"]["rules"][0]["backendRefs"][0].update(weight=1_000_001),
        "greater than the maximum",
    ),
    "fewer than the least": (
        "ScaledObject",
        lambda manifest: manifest["spec"].update(maxReplicaCount=1),
        "must be less than",
    ),
    "a fallback": (
        "ScaledObject",
        lambda manifest: manifest["spec"]["triggers"][0].update(metricType="Utilization"),
        "fallback",
    ),
    "Redis twice": (
        "RayService",
        lambda manifest: manifest["spec"]["rayClusterConfig"]["headGroupSpec"][
            "rayStartParams"
        ].update({"redis-password": "x"}),
        "gcsFaultToleranceOptions",
    ),
    "a token of an older Ray's": (
        "RayService",
        lambda manifest: manifest["spec"]["rayClusterConfig"].update(rayVersion="2.51.2"),
        "minimum Ray version",
    ),
    "workers turned round": (
        "RayService",
        lambda manifest: manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"][0].update(
            minReplicas=99
        ),
        "at most maxReplicas",
    ),
    "a route's host": (
        "GRPCRoute",
        lambda manifest: manifest["spec"].update(hostnames=["Rehue.example.com"]),
        "hostnames",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_a_cluster_refuses_is_refused(production: Api, what: str) -> None:
    kind, broken, output = BROKEN[what]
    name = "rehue-triton" if kind == "Service" else ""
    manifest = copy.deepcopy(next(o for o in render_overlay("production") if o["kind"] == kind
                             and o["metadata"]["name"].startswith(name)))  # fmt: skip
    broken(manifest)
    with pytest.raises(Refused, match=output):
        production.cluster.apply(manifest, "kubectl")
