"""Pod Security's profile "restricted", applied to pod templates."""

from collections.abc import Iterator

from rendered import Object, list_containers

# kubernetes.io, "Pod Security Standards", the profile "restricted" with "baseline" in it.
VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip


def list_violations(pod: Object) -> list[str]:
    """Return the rules of the profile that a pod violates, by Kubernetes' names."""
    return list(_find_violations(pod))


def _find_violations(pod: Object) -> Iterator[str]:
    spec = pod["spec"]
    for shared in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(shared):
            yield f"host namespaces: {shared}"
    for volume in spec.get("volumes", []):
        if not set(volume) - {"name"} <= VOLUMES:
            yield f"volume types: {volume['name']}"
    for container in list_containers(pod):
        for rule in _find_container_violations(spec.get("securityContext", {}), container):
            yield f"{rule}: {container['name']}"


def _find_container_violations(pod: Object, container: Object) -> Iterator[str]:
    own = container.get("securityContext", {})
    both = pod | own
    if own.get("privileged"):
        yield "privileged containers"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "privilege escalation"
    if both.get("runAsNonRoot") is not True or both.get("runAsUser", 1) == 0:
        yield "running as non-root"
    if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccomp"
    capabilities = own.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or set(capabilities.get("add", [])) - {
        "NET_BIND_SERVICE"
    }:
        yield "capabilities"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "host ports"
