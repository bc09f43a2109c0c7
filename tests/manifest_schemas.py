"""Validates rendered objects against Kubernetes' schemas and those of custom resources."""

import json

import jsonschema
import kubernetes_validate
from rendered import K8S, Object

KUBERNETES_VERSION = "1.37"
CLUSTERS = {"RayService": "rayClusterConfig", "RayJob": "rayClusterSpec"}  # fields by kind


def list_problems(manifest: Object) -> list[str]:
    """Return what an API server would refuse in an object."""
    try:
        kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return _list_custom_problems(manifest)
    except kubernetes_validate.ValidationError as error:
        return [f"{list(error.path)}: {error.message}"]
    return []


def _list_custom_problems(manifest: Object) -> list[str]:
    schema = K8S / "schemas" / f"{manifest['kind'].lower()}.json"
    if not schema.is_file():
        return [f"unknown kind {manifest['apiVersion']} {manifest['kind']}"]
    checker = jsonschema.Draft7Validator(json.loads(schema.read_text()))
    found = [f"{list(error.path)}: {error.message}" for error in checker.iter_errors(manifest)]
    found += list_problems(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": manifest["metadata"]}
    )
    cluster = CLUSTERS.get(manifest["kind"])
    if not found and cluster:
        found += _list_ray_pod_problems(manifest["spec"][cluster])
    if not found and manifest["kind"] == "RayService":
        service = manifest["spec"].get("serveService", {"metadata": {"name": "none"}})
        found += list_problems({"apiVersion": "v1", "kind": "Service", **service})
    return found


def _list_ray_pod_problems(cluster: Object) -> list[str]:
    """The schema of a cluster leaves pods and containers to Kubernetes' own."""
    templates = [cluster["headGroupSpec"]["template"]]
    templates += [group["template"] for group in cluster["workerGroupSpecs"]]
    autoscaler = cluster.get("autoscalerOptions", {})
    known = ("resources", "securityContext", "env", "envFrom", "volumeMounts")
    container = {key: autoscaler[key] for key in known if key in autoscaler}
    templates.append(
        {"metadata": {}, "spec": {"containers": [{"name": "autoscaler", **container}]}}
    )
    pods = [{"apiVersion": "v1", "kind": "Pod", **template} for template in templates]
    return [problem for pod in pods for problem in list_problems(pod)]
