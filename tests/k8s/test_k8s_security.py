"""Who may do what: Pod Security "restricted" for every pod, and who reaches whom."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from pod_security import list_violations
from rendered import (
    OVERLAYS,
    Object,
    get_object,
    list_containers,
    list_objects,
    list_pod_templates,
    matches_selector,
    read_settings,
    render_overlay,
)

# The autoscaler beside Ray's head is the only one that talks to the Kubernetes API.
TOKENS = {("production", "ray-head")}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_restricted(overlay: str) -> None:
    assert {role: list_violations(pod) for role, pod in list_pod_templates(overlay).items()} == {
        role: [] for role in list_pod_templates(overlay)
    }
    labels = get_object(overlay, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_autoscaler_is_restricted_too() -> None:
    """KubeRay puts it beside Ray's head, with the pod's own settings and these."""
    cluster = copy.deepcopy(get_object("production", "RayService")["spec"]["rayClusterConfig"])
    head, own = cluster["headGroupSpec"]["template"], cluster["autoscalerOptions"]
    pod = head | {"spec": head["spec"] | {"containers": [own | {"name": "autoscaler"}]}}
    assert list_violations(pod) == []
    assert own["securityContext"]["readOnlyRootFilesystem"] is True
    volumes = {volume["name"] for volume in head["spec"]["volumes"]}
    assert {volume_mount["name"] for volume_mount in own["volumeMounts"]} <= volumes
    own["securityContext"].pop("capabilities")
    assert list_violations(pod) == ["capabilities: autoscaler"]


Break = Callable[[Any], Any]
BROKEN: dict[str, Break] = {
    "host namespaces": lambda pod: pod["spec"].update(hostNetwork=True),
    "volume types": lambda pod: pod["spec"]["volumes"].append({"name": "x", "hostPath": {}}),
    "privileged containers": lambda pod: _get_security_context(pod).update(privileged=True),
    "privilege escalation": lambda pod: _get_security_context(pod).pop("allowPrivilegeEscalation"),
    "running as non-root": lambda pod: _get_security_context(pod).update(runAsUser=0),
    "seccomp": lambda pod: pod["spec"]["securityContext"].pop("seccompProfile"),
    "capabilities": lambda pod: _get_security_context(pod)["capabilities"].update(
        add=["SYS_ADMIN"]
    ),
    "host ports": lambda pod: pod["spec"]["containers"][0]["ports"][0].update(hostPort=80),
}


def _get_security_context(pod: Object) -> Object:
    found: Object = pod["spec"]["containers"][0]["securityContext"]
    return found


@pytest.mark.parametrize("rule", BROKEN)
def test_what_would_not_be_restricted_is_named(rule: str) -> None:
    pod = copy.deepcopy(list_pod_templates("gpu")["triton"])
    BROKEN[rule](pod)
    assert {broken.split(":")[0] for broken in list_violations(pod)} == {rule}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_closed_and_bounded(overlay: str) -> None:
    """What we ask beyond the profile."""
    for role, pod in list_pod_templates(overlay).items():
        assert pod["spec"]["automountServiceAccountToken"] is ((overlay, role) in TOKENS), role
        for container in list_containers(pod):
            where = f"{role}: {container['name']}"
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, where
            for bound in ("requests", "limits"):
                assert {"cpu", "memory"} <= set(container["resources"][bound]), where
        for container in pod["spec"]["containers"]:
            assert {"livenessProbe", "readinessProbe"} <= set(container), role


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_secret_is_written_down(overlay: str) -> None:
    assert list_objects(overlay, "Secret") == []
    for config in list_objects(overlay, "ConfigMap"):
        text = str(config["data"]).lower()
        assert not any(word in text for word in ("password", "secret", "token")), config["metadata"]


def test_keys_come_from_a_secret() -> None:
    for overlay in ("gpu", "production"):
        folder, _, file = read_settings(overlay)["REHUE_API_KEYS_FILE"].rpartition("/")
        assert file == "keys"
        for role in ("ray-head", "ray-worker"):
            spec = list_pod_templates(overlay)[role]["spec"]
            (volume,) = [
                found_volume for found_volume in spec["volumes"] if found_volume["name"] == "keys"
            ]
            assert volume["secret"]["secretName"] == "rehue-api-keys"
            assert not volume["secret"].get("optional")
            (mount,) = [
                volume_mount
                for volume_mount in spec["containers"][0]["volumeMounts"]
                if volume_mount["name"] == "keys"
            ]
            assert (mount["mountPath"], mount["readOnly"]) == (folder, True)


# Network: who is who, by their labels, and by those of their namespace where it has any.
OUTSIDE = {
    "prometheus": {"app.kubernetes.io/name": "prometheus"},
    "operator": {"app.kubernetes.io/name": "kuberay-operator"},
    "gateway": {"app": "envoy"},
    "team": {"app": "something"},
    "stranger": {"app": "rehue", "role": "ray-head"},  # the same labels, another namespace
}
NAMESPACE = {
    "gateway": {"kubernetes.io/metadata.name": "envoy-gateway-system"},
    "team": {"rehue-client": "true"},
}
INSIDE = {"client": {"rehue-client": "true"}, "neighbour": {"app": "something"}}

REACHED = [
    # from, to, port, in which overlays
    ("client", "ray-worker", 8000, OVERLAYS),
    ("client", "ray-worker", 9000, OVERLAYS),
    ("client", "ray-worker", 8404, ()),  # HAProxy's statistics
    ("client", "ray-worker", 9101, ()),  # HAProxy's metrics
    ("client", "ray-head", 8265, ()),  # Ray's dashboard
    ("client", "triton", 8001, ()),
    ("team", "ray-worker", 9000, OVERLAYS),
    ("team", "ray-head", 8265, ()),
    ("neighbour", "ray-worker", 8000, ()),
    ("neighbour", "triton", 8001, ()),
    ("stranger", "ray-worker", 8000, ()),
    ("stranger", "ray-head", 6379, ()),
    ("gateway", "ray-worker", 8000, ("production",)),
    ("gateway", "ray-worker", 9000, ("production",)),
    ("gateway", "ray-worker", 8404, ()),
    ("gateway", "ray-head", 8265, ()),
    ("operator", "ray-head", 8265, OVERLAYS),
    ("operator", "ray-worker", 8000, ()),
    ("operator", "triton", 8001, ()),
    ("prometheus", "ray-head", 9464, OVERLAYS),
    ("prometheus", "ray-worker", 9464, OVERLAYS),
    ("prometheus", "triton", 8002, OVERLAYS),
    ("prometheus", "triton", 8001, ()),
    ("prometheus", "ray-worker", 8404, ()),
    ("ray-worker", "ray-head", 6379, OVERLAYS),
    ("ray-head", "ray-worker", 10002, OVERLAYS),
    ("ray-worker", "ray-worker", 8404, OVERLAYS),
    ("ray-worker", "triton", 8001, OVERLAYS),
    ("ray-worker", "triton", 8000, ()),
    ("ray-head", "triton", 8001, ()),
    ("triton", "ray-head", 8265, ()),
    ("triton", "triton", 8001, ()),
    ("ray-head", "redis", 6379, ("production",)),
    ("ray-worker", "redis", 6379, ("production",)),
    ("client", "redis", 6379, ()),
    ("triton", "redis", 6379, ()),
]


def is_allowed(overlay: str, source: str, target: str, port: int) -> bool:
    """Return whether the rendered network policies allow a connection."""
    here = {
        role: _get_labels(role, pod) for role, pod in list_pod_templates(overlay).items()
    } | INSIDE
    if target not in here:
        return False
    out = source not in here or _is_side_allowed(
        overlay, "egress", here[source], here[target], None, port
    )
    labels = here.get(source, OUTSIDE.get(source, {}))
    namespace = None if source in here else NAMESPACE.get(source, {"other": "namespace"})
    return out and _is_side_allowed(overlay, "ingress", here[target], labels, namespace, port)


def _get_labels(role: str, pod: Object) -> dict[str, str]:
    """Return a pod's labels and those that KubeRay adds."""
    extra = {"ray.io/cluster": "rehue-abc"} if role.startswith("ray-") else {}
    return pod["metadata"]["labels"] | extra  # type: ignore[no-any-return]


def _is_side_allowed(
    overlay: str,
    way: str,
    own: dict[str, str],
    other: dict[str, str],
    namespace: dict[str, str] | None,
    port: int,
) -> bool:
    policies = [
        manifest["spec"]
        for manifest in list_objects(overlay, "NetworkPolicy")
        if way.capitalize() in manifest["spec"]["policyTypes"]
        and matches_selector(manifest["spec"]["podSelector"], own)
    ]
    assert policies, "the policy for all pods is missing"
    peers = "to" if way == "egress" else "from"
    return any(
        (not rule.get(peers) or any(_matches_peer(peer, other, namespace) for peer in rule[peers]))
        and (not rule.get("ports") or port in [entry["port"] for entry in rule["ports"]])
        for policy in policies
        for rule in policy.get(way, [])
    )


def _matches_peer(peer: Object, labels: dict[str, str], namespace: dict[str, str] | None) -> bool:
    where = peer.get("namespaceSelector")
    there = namespace is None if where is None else matches_selector(where, namespace or {})
    return there and matches_selector(peer.get("podSelector", {}), labels)


@pytest.mark.parametrize(("source", "target", "port", "where"), REACHED)
def test_network_policies_allow_only_the_listed_connections(
    source: str, target: str, port: int, where: tuple[str, ...]
) -> None:
    found = tuple(overlay for overlay in OVERLAYS if is_allowed(overlay, source, target, port))
    assert found == tuple(overlay for overlay in OVERLAYS if overlay in where)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_selector_chooses_a_pod(overlay: str) -> None:
    labels = [_get_labels(role, pod) for role, pod in list_pod_templates(overlay).items()] + [
        INSIDE["client"]
    ]
    for manifest in render_overlay(overlay):
        spec = manifest.get("spec", {})
        if manifest["kind"] in ("PodDisruptionBudget", "PodMonitor", "Deployment", "StatefulSet"):
            selector = spec["selector"]
        elif manifest["kind"] == "Service":
            selector = {"matchLabels": spec["selector"]}
        elif manifest["kind"] == "NetworkPolicy":
            selector = spec["podSelector"]
        else:
            continue
        assert any(matches_selector(selector, each) for each in labels), manifest["metadata"]
