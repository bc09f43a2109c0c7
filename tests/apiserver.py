"""An API that takes server-side applies as a cluster's does, for kubectl itself to talk to.

No kube-apiserver is to be had from the registries that this project uses, so this stands in
for it: Kubernetes' and the custom resources' schemas with unknown fields as errors, lists
merged by their keys, fields owned by managers and conflicts over them, immutable fields, a
namespace before what lies in it, and the rules across fields of admission.py. It runs
nothing: no controller, no webhook, no quota.
"""

import json
import threading
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml
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


# Schemas, for the keys of lists.


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


# The way in: what kubectl asks before and while it applies.


def _list_resources(api: str) -> list[Object]:
    return [
        {
            "name": plural, "singularName": kind.lower(), "kind": kind,
            "namespaced": kind != "Namespace", "verbs": ["get", "patch"],
        }
        for kind, plural in KINDS[api].items()
    ]  # fmt: skip


def _list_groups() -> list[Object]:
    versions: dict[str, list[Object]] = {}
    for api in KINDS:
        group, _, version = api.rpartition("/")
        if group:
            versions.setdefault(group, []).append({"groupVersion": api, "version": version})
    return [
        {"name": name, "versions": held, "preferredVersion": held[0]}
        for name, held in versions.items()
    ]


def _build_openapi(api: str) -> Object:
    """Return as much OpenAPI as tells kubectl that the server validates fields."""
    group, _, version = api.rpartition("/")
    paths = {
        f"/{plural}/{{name}}": {
            "patch": {
                "parameters": [{"name": "fieldValidation", "in": "query"}],
                "x-kubernetes-group-version-kind": {
                    "group": group, "version": version, "kind": kind,
                },
                "responses": {},
            }
        }
        for kind, plural in KINDS[api].items()
    }  # fmt: skip
    return {"openapi": "3.0.0", "info": {"title": api, "version": version}, "paths": paths}


def _get_root(api: str) -> str:
    return f"/apis/{api}" if "/" in api else f"/api/{api}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        fixed: dict[str, Object] = {
            "/version": {"major": "1", "minor": "37", "gitVersion": f"v{KUBERNETES_VERSION}.0"},
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": _list_groups()},
            "/openapi/v3": {
                "paths": {_get_root(api)[1:]: {"serverRelativeURL": f"/openapi/v3{_get_root(api)}"}
                          for api in KINDS}
            },
        }  # fmt: skip
        for api in KINDS:
            listed = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api}
            fixed[_get_root(api)] = listed | {"resources": _list_resources(api)}
            fixed[f"/openapi/v3{_get_root(api)}"] = _build_openapi(api)
        if path in fixed:
            self._answer(200, fixed[path])
            return
        found = self.cluster.objects.get(_parse_key(path))
        missing = Refused(404, "NotFound", f"{path} not found").status
        self._answer(200 if found else 404, found or missing)

    def do_PATCH(self) -> None:
        body = yaml.safe_load(self.rfile.read(int(self.headers["Content-Length"])))
        asked = parse_qs(urlsplit(self.path).query)
        try:
            if self.headers["Content-Type"] != "application/apply-patch+yaml":
                raise Refused(415, "UnsupportedMediaType", self.headers["Content-Type"])
            if asked.get("fieldValidation") != ["Strict"]:
                raise Refused(400, "BadRequest", "these tests ask for strict validation")
            with self.cluster.lock:
                force = asked.get("force") == ["true"]
                made, fresh = self.cluster.apply(body, asked["fieldManager"][0], force=force)
            self._answer(201 if fresh else 200, made)
        except Refused as refused:
            self._answer(int(str(refused.status["code"])), refused.status)

    def _answer(self, code: int, content: Object) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *_: object) -> None:
        """Print nothing."""


def _parse_key(path: str) -> tuple[str, ...]:
    """Return the key of the object that a URL names."""
    api = next(
        (found_kind for found_kind in KINDS if path.startswith(f"{_get_root(found_kind)}/")), "v1"
    )
    rest = path.removeprefix(f"{_get_root(api)}/").split("/")
    namespace = rest[1] if len(rest) == 4 else ""
    kinds = {plural: kind for kind, plural in KINDS[api].items()}
    return (api, kinds.get(rest[-2] if len(rest) > 1 else "", ""), namespace, rest[-1])


def start_server(cluster: Cluster) -> ThreadingHTTPServer:
    """Serve the cluster's API on a free port, in a thread."""
    handler = type("Handler", (_Handler,), {"cluster": cluster})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
