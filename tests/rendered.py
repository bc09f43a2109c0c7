"""The overlays of k8s/ as kubectl renders them."""

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
K8S = ROOT / "k8s"
OVERLAYS = ("gpu", "cpu", "production")
KUBECTL = Path(sys.executable).with_name("kubectl")

Object = dict[str, Any]


@functools.cache
def render_overlay(overlay: str) -> tuple[Object, ...]:
    """Return the objects of an overlay. Do not change them: all tests share them."""
    made = subprocess.run(
        [KUBECTL, "kustomize", K8S / "overlays" / overlay],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return tuple(yaml.safe_load_all(made.stdout))


def list_objects(overlay: str, kind: str) -> list[Object]:
    """Return the objects of a kind."""
    return [manifest for manifest in render_overlay(overlay) if manifest["kind"] == kind]


def get_object(overlay: str, kind: str, name: str = "") -> Object:
    """Return the only object of a kind whose name has this prefix (names can end in a hash)."""
    (found,) = [
        manifest
        for manifest in list_objects(overlay, kind)
        if manifest["metadata"]["name"].startswith(name)
    ]
    return found


def list_services(overlay: str) -> list[Object]:
    """Return the Services, with the one that KubeRay makes of `serveService` for a cluster."""
    spec = get_object(overlay, "RayService")["spec"]
    head = get_main_container(spec["rayClusterConfig"]["headGroupSpec"]["template"])
    given = {port["name"]: port for port in spec["serveService"]["spec"]["ports"]}
    # BuildServeService of KubeRay 1.7: the head's container says which ports it has.
    ports = [
        given.get(port["name"], {"name": port["name"], "port": port["containerPort"]})
        for port in head["ports"]
        if port["name"] == "serve" or port["name"].startswith("serve-")
    ]
    made = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": spec["serveService"]["metadata"],
        "spec": {"ports": ports, "selector": {"app": "rehue", "role": "ray-worker"}},
    }
    return [*list_objects(overlay, "Service"), made]


def list_pod_templates(overlay: str) -> dict[str, Object]:
    """Return the pod templates of an overlay by role."""
    cluster = get_object(overlay, "RayService")["spec"]["rayClusterConfig"]
    found = [cluster["headGroupSpec"]["template"]]
    found += [group["template"] for group in cluster["workerGroupSpecs"]]
    for kind in ("Deployment", "StatefulSet"):
        found += [manifest["spec"]["template"] for manifest in list_objects(overlay, kind)]
    return {template["metadata"]["labels"]["role"]: template for template in found}


def list_containers(pod: Object) -> list[Object]:
    """Return the init containers and the containers of a pod."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def get_main_container(pod: Object) -> Object:
    """Return the first container, which serves."""
    first: Object = pod["spec"]["containers"][0]
    return first


def read_settings(overlay: str) -> dict[str, str]:
    """Return the application's settings, from their ConfigMap."""
    data: dict[str, str] = get_object(overlay, "ConfigMap", "rehue-settings")["data"]
    return data


def matches_selector(selector: Object, labels: dict[str, str]) -> bool:
    """Return whether a label selector selects a pod with these labels."""
    for expression in selector.get("matchExpressions", []):
        value = labels.get(expression["key"])
        if value is None or (expression["operator"] == "In" and value not in expression["values"]):
            return False
    required: dict[str, str] = selector.get("matchLabels", {})
    return required.items() <= labels.items()
