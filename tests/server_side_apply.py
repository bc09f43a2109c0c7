"""Objects of a cluster, and server-side applies to them, as a kube-apiserver does them.

Kubernetes' and the custom resources' schemas with unknown fields as errors, lists merged by
their keys, fields owned by managers and conflicts over them, immutable fields, a namespace
before what lies in it, and the rules across fields of admission.py. It runs nothing: no
controller, no webhook, no quota.
"""

import json
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
from admission import list_breaches
from manifest_schemas import KUBERNETES_VERSION, list_problems
from rendered import Object

# Plural of each kind, by its API; a kind that is not here is not installed in this cluster.
KINDS: dict[str, dict[str, str]] = {
    "v1": {
        "ConfigMap": "configmaps", "Namespace": "namespaces",
        "PersistentVolumeClaim": "persistentvolumeclaims", "Service": "services",
        "ServiceAccount": "serviceaccounts",
    },
    "apps/v1": {"Deployment": "deployments", "StatefulSet": "statefulsets"},
    "networking.k8s.io/v1": {"NetworkPolicy": "networkpolicies"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "ray.io/v1": {"RayCluster": "rayclusters", "RayService": "rayservices"},
    "monitoring.coreos.com/v1": {"PodMonitor": "podmonitors", "PrometheusRule": "prometheusrules"},
    "gateway.networking.k8s.io/v1": {
        "Gateway": "gateways", "HTTPRoute": "httproutes", "GRPCRoute": "grpcroutes",
    },
    "gateway.networking.k8s.io/v1beta1": {"ReferenceGrant": "referencegrants"},
    "gateway.envoyproxy.io/v1alpha1": {"BackendTrafficPolicy": "backendtrafficpolicies"},
    "keda.sh/v1alpha1": {"ScaledObject": "scaledobjects"},
}  # fmt: skip
IMMUTABLE = {
    "Deployment": (("spec", "selector"),),
    "StatefulSet": (
        ("spec", "selector"), ("spec", "serviceName"), ("spec", "volumeClaimTemplates"),
    ),
    "Service": (("spec", "clusterIP"),),
    "PersistentVolumeClaim": (("spec", "accessModes"), ("spec", "storageClassName")),
}  # fmt: skip
# A path of a field: names, and for an item of a keyed list its keys' values.
FieldPath = tuple[Any, ...]
DEFAULTS = {"protocol": "TCP"}  # of keys that an item need not name


class Refused(Exception):
    """An answer other than 200: code, reason, message."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = {
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
            "reason": reason, "message": message,
        }  # fmt: skip


class Cluster:
    """Objects by API, namespace and name, and the managers of their fields."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, ...], Object] = {("v1", "Namespace", "", "default"): {}}
        self.owned: dict[tuple[str, ...], dict[str, dict[FieldPath, Any]]] = {}
        self.lock = threading.Lock()

    def apply(self, manifest: Object, manager: str, *, force: bool = False) -> tuple[Object, bool]:
        """Merge a manager's configuration into an object; return it, and whether it is new.

        Raises:
            Refused: with the code and the reason that Kubernetes gives.
        """
        if manifest["kind"] not in KINDS.get(manifest["apiVersion"], {}):
            raise Refused(404, "NotFound", f"no matches for kind {manifest['kind']}")
        name = manifest["metadata"]["name"]
        namespace = manifest["metadata"].get("namespace", "")
        key = (manifest["apiVersion"], manifest["kind"], namespace, name)
        if namespace and ("v1", "Namespace", "", namespace) not in self.objects:
            raise Refused(404, "NotFound", f'namespaces "{namespace}" not found')
        wanted = dict(list_fields(manifest, _get_schema(manifest)))
        owners = self.owned.setdefault(key, {})
        clashes = [
            f'conflict with "{other}": {".".join(map(str, path))}'
            for other, held in owners.items()
            for path, value in wanted.items()
            if other != manager and path in held and held[path] != value
        ]
        if clashes and not force:
            raise Refused(409, "Conflict", f"Apply failed: {'; '.join(clashes)}")
        for other, held in owners.items():
            if other != manager:
                owners[other] = {p: v for p, v in held.items() if wanted.get(p, v) == v}
        fresh = key not in self.objects
        _raise_if_invalid(
            manifest,
            [*list_problems(manifest), *list_breaches(manifest), *self._changed(key, manifest)],
        )
        owners[manager] = wanted
        self.objects[key] = self._keep_status(key, manifest)
        return self.objects[key], fresh

    def _keep_status(self, key: tuple[str, ...], manifest: Object) -> Object:
        """Return a manifest with the status that controllers wrote, and the next generation."""
        before = self.objects.get(key, {})
        generation = before.get("metadata", {}).get("generation", 0)
        generation += before.get("spec") != manifest.get("spec")
        metadata = manifest["metadata"] | {"generation": generation}
        status = {"status": before["status"]} if "status" in before else {}
        return manifest | {"metadata": metadata} | status

    def _changed(self, key: tuple[str, ...], manifest: Object) -> Iterator[str]:
        """Yield changes of immutable fields."""
        before = self.objects.get(key)
        for path in IMMUTABLE.get(manifest["kind"], ()) if before else ():
            if _get_field(before, path) != _get_field(manifest, path):
                yield f"{'.'.join(path)}: field is immutable"

    def fields(self, kind: str, name: str) -> dict[str, dict[FieldPath, Any]]:
        """Return the fields of an object by manager."""
        (key,) = [key for key in self.owned if (key[1], key[3]) == (kind, name)]
        return self.owned[key]


def _get_field(value: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        value = (value or {}).get(step)
    return value


def _raise_if_invalid(manifest: Object, found: list[str]) -> None:
    if found:
        named = f'{manifest["kind"]} "{manifest["metadata"]["name"]}" is invalid: '
        raise Refused(422, "Invalid", named + "; ".join(found))


@cache
def _load_definitions() -> dict[str, Any]:
    package = Path(kubernetes_validate.__file__).parent
    folder = package / "kubernetes-json-schema" / f"v{KUBERNETES_VERSION}.0-local"
    found: dict[str, Any] = json.loads((folder / "_definitions.json").read_text())["$defs"]
    return found


@cache
def _load_kinds() -> dict[tuple[str, str], Any]:
    """Return Kubernetes' own kinds; the lists of a custom resource are atomic."""
    return {
        (
            f"{version_kind['group']}/{version_kind['version']}".lstrip("/"),
            version_kind["kind"],
        ): schema
        for schema in _load_definitions().values()
        for version_kind in schema.get("x-kubernetes-group-version-kind", [])
    }


def _get_schema(manifest: Object) -> Any:
    return _load_kinds().get((manifest["apiVersion"], manifest["kind"]), {})


def list_fields(value: Any, schema: Any, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Any]]:
    """Yield the fields of an applied configuration with their values.

    Raises:
        Refused: an item of a keyed list is there twice.
    """
    while "$ref" in schema:
        schema = _load_definitions()[schema["$ref"].rpartition("/")[2]]
    if isinstance(value, dict) and schema.get("x-kubernetes-map-type") != "atomic":
        properties = schema.get("properties", {})
        for name, item in value.items():
            deeper = properties.get(name, schema.get("additionalProperties") or {})
            if path or name not in ("apiVersion", "kind"):
                yield from list_fields(item, deeper, (*path, name))
    elif isinstance(value, list) and schema.get("x-kubernetes-list-type") == "map":
        keys, seen = schema["x-kubernetes-list-map-keys"], set()
        for item in value:
            held = tuple(item.get(key, DEFAULTS.get(key)) for key in keys)
            if held in seen:
                raise Refused(400, "BadRequest", f"{path}: duplicate entries for key {held}")
            seen.add(held)
            yield from list_fields(item, schema["items"], (*path, held))
    else:
        yield path, value
