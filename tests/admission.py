"""Rules of admission beyond the schemas, as far as these manifests could break them.

They are Kubernetes' rules across fields, the CEL rules of the Gateway API's resources, and the
checks of KEDA's admission and KubeRay's operator, written from their documentation and sources:
no registry that this project uses has the definitions with their CEL rules.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator

from rendered import Object, list_containers

LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
SUBDOMAIN = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
)
SERVICE = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
PORT = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
RPC = re.compile(r"\.?[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*", re.IGNORECASE)
PATH = re.compile(r"/([A-Za-z0-9/\-._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})*")


def list_breaches(manifest: Object) -> Iterator[str]:
    """Yield what an API server refuses beyond the schema."""
    name = manifest["metadata"]["name"]
    if not (SERVICE if manifest["kind"] == "Service" else SUBDOMAIN).fullmatch(name):
        yield f"metadata.name: {name}"
    yield from _check_labels(manifest["metadata"])
    for pod in find_pod_templates(manifest):
        yield from _check_labels(pod["metadata"])
        yield from _check_pod(manifest, pod)
    if manifest["kind"] in ("Deployment", "StatefulSet"):
        chosen = manifest["spec"]["selector"]["matchLabels"]
        if not chosen.items() <= manifest["spec"]["template"]["metadata"]["labels"].items():
            yield "spec.selector does not match the template's labels"
    yield from RULES.get(manifest["kind"], lambda _: iter(()))(manifest.get("spec", {}))  # type: ignore[no-untyped-call]


def find_pod_templates(manifest: Object) -> list[Object]:
    """Return the pod templates of an object."""
    if manifest["kind"] == "RayService":
        cluster = manifest["spec"]["rayClusterConfig"]
        return [
            group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
        ]
    return (
        [manifest["spec"]["template"]] if manifest["kind"] in ("Deployment", "StatefulSet") else []
    )


def _check_labels(metadata: Object) -> Iterator[str]:
    for key, value in metadata.get("labels", {}).items():
        if not LABEL.fullmatch(value) or not LABEL.fullmatch(key.rpartition("/")[2]):
            yield f"labels: {key}={value}"


def _check_pod(owner: Object, pod: Object) -> Iterator[str]:
    volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])}
    claims = owner["spec"].get("volumeClaimTemplates", [])
    volumes |= {claim["metadata"]["name"] for claim in claims}
    names = [found_container["name"] for found_container in list_containers(pod)]
    if len(set(names)) < len(names):
        yield f"containers: duplicate names {names}"
    for container in list_containers(pod):
        where = container["name"]
        ports = [found_port["name"] for found_port in container.get("ports", [])]
        if len(set(ports)) < len(ports) or not all(
            PORT.fullmatch(p) and len(p) < 16 for p in ports
        ):
            yield f"{where}: names of ports {ports}"
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                yield f"{where}: volumeMounts: {mount['name']} not found"
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            for action in ("httpGet", "tcpSocket"):
                port = container.get(probe, {}).get(action, {}).get("port")
                if isinstance(port, str) and port not in ports:
                    yield f"{where}: {probe}: no port {port}"
        wait = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if wait > pod["spec"].get("terminationGracePeriodSeconds", 30):
            yield f"{where}: preStop.sleep is longer than the grace period"
        yield from _check_resources(where, container.get("resources", {}))


def _check_resources(where: str, resources: Object) -> Iterator[str]:
    limits = resources.get("limits", {})
    for name, asked in resources.get("requests", {}).items():
        if name in limits and parse_quantity(asked) > parse_quantity(limits[name]):
            yield f"{where}: requests.{name} must be at most its limit"
        if "/" in name and limits.get(name) != asked:
            yield f"{where}: requests.{name} must equal its limit"


def parse_quantity(text: str | float) -> float:
    """Return a Kubernetes quantity in its base unit."""
    number, unit = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(text)).groups()  # type: ignore[union-attr]
    units = {
        "": 1.0,
        "m": 1e-3,
        "k": 1e3,
        "M": 1e6,
        "G": 1e9,
        "Ki": 2.0**10,
        "Mi": 2.0**20,
        "Gi": 2.0**30,
    }
    return float(number) * units[unit]


def _check_service(spec: Object) -> Iterator[str]:
    for what in ("name", "port"):
        held = [port[what] for port in spec["ports"]]
        if len(set(held)) < len(held):
            yield f"spec.ports: duplicate {what}"


def _check_budget(spec: Object) -> Iterator[str]:
    if ("minAvailable" in spec) is ("maxUnavailable" in spec):
        yield "spec: one of minAvailable and maxUnavailable"


def _check_gateway(spec: Object) -> Iterator[str]:
    listeners = spec["listeners"]
    for keys in (("name",), ("port", "protocol", "hostname")):
        held = [tuple(listener.get(key) for key in keys) for listener in listeners]
        if len(set(held)) < len(held):
            yield f"spec.listeners: {' and '.join(keys)} must be unique"
    for listener in listeners:
        if (listener["protocol"] in ("HTTPS", "TLS")) is not ("tls" in listener):
            yield f"{listener['name']}: tls goes with HTTPS and TLS alone"
        tls = listener.get("tls", {})
        if listener["protocol"] == "HTTPS" and tls.get("mode", "Terminate") != "Terminate":
            yield f"{listener['name']}: tls.mode must be Terminate for HTTPS"
        if tls.get("mode", "Terminate") == "Terminate" and tls and not tls.get("certificateRefs"):
            yield f"{listener['name']}: Terminate needs certificateRefs"


def _check_route(spec: Object) -> Iterator[str]:
    parents = [
        (parent_ref["name"], parent_ref.get("sectionName")) for parent_ref in spec["parentRefs"]
    ]
    names = {name for name, _ in parents}
    whole = any(section is None for _, section in parents)
    if len(set(parents)) < len(parents) or (whole and len(names) < len(parents)):
        yield "spec.parentRefs: sectionName must be unique"
    if sum(len(rule.get("matches", [])) for rule in spec["rules"]) >= 128:
        yield "spec.rules: fewer than 128 matches in all"
    for rule in spec["rules"]:
        times = rule.get("timeouts", {})
        if {"request", "backendRequest"} <= set(times) and _is_shorter(**times):
            yield "timeouts: backendRequest cannot be longer than request"
        if any("port" not in backend for backend in rule.get("backendRefs", [])):
            yield "backendRefs: a Service needs a port"
        for match in rule.get("matches", []):
            yield from _check_match(match)


def _check_match(match: Object) -> Iterator[str]:
    path = match.get("path", {}).get("value", "/")
    forbidden = ("//", "/./", "/../", "%2f", "%2F", "#")
    if not PATH.fullmatch(path) or any(text in path for text in forbidden):
        yield f"matches: path {path}"
    if path.endswith(("/.", "/..")):
        yield f"matches: path {path}"
    if "method" in match and isinstance(match["method"], dict):
        if not {"service", "method"} & set(match["method"]):
            yield "matches: method needs service or method"
        if not RPC.fullmatch(match["method"].get("service", "x")):
            yield f"matches: service {match['method']['service']}"


def _check_scaled_object(spec: Object) -> Iterator[str]:
    """Yield what KEDA's admission refuses."""
    least, most = spec.get("minReplicaCount", 0), spec.get("maxReplicaCount", 100)
    if least > most:
        yield f"minReplicaCount={least} must be less than maxReplicaCount={most}"
    if spec.get("idleReplicaCount", -1) >= least:
        yield "idleReplicaCount must be less than minReplicaCount"
    fallback = spec.get("fallback")
    if fallback and min(fallback["failureThreshold"], fallback["replicas"]) < 0:
        yield "fallback: both must be greater than or equal to 0"
    # Value as well as AverageValue from KEDA 2.18 on; before it only the latter.
    kinds = [trigger.get("metricType", "AverageValue") for trigger in spec["triggers"]
             if trigger["type"] not in ("cpu", "memory")]  # fmt: skip
    if fallback and not {"Value", "AverageValue"} & set(kinds):
        yield "fallback: at least one trigger has to have the type Value or AverageValue"


def _check_ray_service(spec: Object) -> Iterator[str]:
    """Yield what KubeRay's operator refuses to reconcile."""
    cluster = spec["rayClusterConfig"]
    if spec.get("rayClusterDeletionDelaySeconds", 0) < 0:
        yield "rayClusterDeletionDelaySeconds should be a non-negative integer"
    authentication = cluster.get("authOptions", {})
    version = tuple(map(int, cluster.get("rayVersion", "0").split(".")))
    if authentication.get("mode") == "token" and version < (2, 52):
        yield "authOptions.mode is 'token' but minimum Ray version is 2.52.0"
    if authentication.get("enableK8sTokenAuth"):
        yield "authOptions.enableK8sTokenAuth is not for a RayService"
    groups = Counter(
        worker_group_spec["groupName"] for worker_group_spec in cluster["workerGroupSpecs"]
    )
    if any(count > 1 for count in groups.values()):
        yield "workerGroupSpecs: groupName must be unique"
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        given = group.get("rayStartParams", {})
        if "resources" in group and {"num-cpus", "num-gpus", "memory", "resources"} & set(given):
            yield "resource fields should not be set in both rayStartParams and resources"
        if "labels" in given:
            yield "rayStartParams: labels is not supported"
        names = {
            variable["name"]
            for variable in group["template"]["spec"]["containers"][0].get("env", [])
        }
        if "redis-password" in given or {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD"} & names:
            yield "Redis is set by gcsFaultToleranceOptions alone"
        if group.get("minReplicas", 0) > group.get("maxReplicas", 2**31):
            yield "minReplicas must be at most maxReplicas"


def _is_shorter(request: str, backendRequest: str) -> bool:  # noqa: N803
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3}
    asked, behind = (
        sum(float(n) * units[unit] for n, unit in re.findall(r"(\d+)(ms|h|m|s)", duration))
        for duration in (request, backendRequest)
    )
    return asked < behind


RULES: dict[str, Callable[[Object], Iterator[str]]] = {
    "Service": _check_service,
    "PodDisruptionBudget": _check_budget,
    "Gateway": _check_gateway,
    "HTTPRoute": _check_route,
    "GRPCRoute": _check_route,
    "ScaledObject": _check_scaled_object,
    "RayService": _check_ray_service,
}
