"""The HTTP API of a cluster, as far as kubectl asks it before and while it applies manifests.

No kube-apiserver is to be had from the registries that this project uses, so this stands in
for it; `server_side_apply.py` holds the objects.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import yaml
from manifest_schemas import KUBERNETES_VERSION
from rendered import Object
from server_side_apply import KINDS, Cluster, Refused


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
