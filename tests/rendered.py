"""The overlays of k8s/, as kubectl itself renders them."""

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
def objects(overlay: str) -> tuple[Object, ...]:
    """Every object of an overlay. Read them, do not change them: all tests share them."""
    made = subprocess.run(
        [KUBECTL, "kustomize", K8S / "overlays" / overlay],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return tuple(yaml.safe_load_all(made.stdout))


def every(overlay: str, kind: str) -> list[Object]:
    return [manifest for manifest in objects(overlay) if manifest["kind"] == kind]


def only(overlay: str, kind: str, name: str = "") -> Object:
    """The one object of a kind whose name starts so (generated names end in a hash)."""
    (found,) = [
        manifest
        for manifest in every(overlay, kind)
        if manifest["metadata"]["name"].startswith(name)
    ]
    return found


def pods(overlay: str) -> dict[str, Object]:
    """Every pod template of an overlay, by the pod's role."""
    cluster = only(overlay, "RayService")["spec"]["rayClusterConfig"]
    found = [cluster["headGroupSpec"]["template"]]
    found += [group["template"] for group in cluster["workerGroupSpecs"]]
    for kind in ("Deployment", "StatefulSet"):
        found += [manifest["spec"]["template"] for manifest in every(overlay, kind)]
    return {template["metadata"]["labels"]["role"]: template for template in found}


def containers(pod: Object) -> list[Object]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def main(pod: Object) -> Object:
    """The container that serves."""
    first: Object = pod["spec"]["containers"][0]
    return first


def settings(overlay: str) -> dict[str, str]:
    """The ConfigMap that the application's settings come from."""
    data: dict[str, str] = only(overlay, "ConfigMap", "rehue-settings")["data"]
    return data


def matches_selector(selector: Object, labels: dict[str, str]) -> bool:
    """Return whether a label selector selects a pod with these labels."""
    for expression in selector.get("matchExpressions", []):
        value = labels.get(expression["key"])
        if value is None or (expression["operator"] == "In" and value not in expression["values"]):
            return False
    required: dict[str, str] = selector.get("matchLabels", {})
    return required.items() <= labels.items()
