"""Pods: nodes, probes, volumes, and how long a stop takes."""

import re
from typing import Any

from admission import parse_quantity
from cluster import get_cluster, get_workers, list_ports
from rendered import (
    K8S,
    Object,
    get_main_container,
    get_object,
    list_objects,
    list_pod_templates,
    render_overlay,
)

from rehue_serve import endpoints
from rehue_serve.settings import Settings


def test_rays_logs_fit_their_volume(overlay: str) -> None:
    """20 rotating files of a node take at most half of /tmp, for an eviction has no grace."""
    data = get_object(overlay, "ConfigMap", "rehue-ray")["data"]
    files = int(data["RAY_ROTATION_BACKUP_COUNT"]) + 1
    for role in ("ray-head", "ray-worker"):
        volumes = list_pod_templates(overlay)[role]["spec"]["volumes"]
        (tmp,) = [volume for volume in volumes if volume["name"] == "tmp"]
        limit = parse_quantity(tmp["emptyDir"]["sizeLimit"])
        assert 20 * files * int(data["RAY_ROTATION_MAX_BYTES"]) <= limit / 2


def test_pods_choose_nodes_by_what_every_cluster_has(overlay: str) -> None:
    """The images are for x86_64, and labels of GPU feature discovery are not on every node."""
    for role, pod in list_pod_templates(overlay).items():
        chosen_by = pod["spec"].get("nodeSelector", {})
        expected = {} if role == "redis" else {"kubernetes.io/arch": "amd64"}
        assert chosen_by == expected, role
        assert "requiredDuringSchedulingIgnoredDuringExecution" not in str(pod["spec"]), role


def test_probes_ask_what_answers(overlay: str) -> None:
    from ray._private import ray_constants

    answered = {"/-/healthz", "/api/gcs_healthz", "/api/local_raylet_healthz"}
    for role in ("ray-head", "ray-worker"):
        container = get_main_container(list_pod_templates(overlay)[role])
        asked = {}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            get = container[probe]["httpGet"]
            asked[get["path"]] = list_ports(list_pod_templates(overlay)[role]).get(
                get["port"], get["port"]
            )
        assert set(asked) < answered
        assert (
            asked["/api/local_raylet_healthz"] == ray_constants.DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
        )
    triton = get_main_container(list_pod_templates(overlay)["triton"])
    assert triton["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    # It computes a photograph: Triton's own /v2/health/live looks at no GPU.
    assert triton["livenessProbe"]["exec"]["command"] == ["/opt/rehue/start", "live"]
    if overlay == "cpu":
        assert triton["startupProbe"]["httpGet"]["path"] == "/v2/health/ready"
    else:  # Triton's answers were compared
        assert triton["startupProbe"]["exec"]["command"] == ["/opt/rehue/start", "ready"]
    start = (K8S / "triton" / "start").read_text()
    assert {"ready", "live"} <= set(re.findall(r"^(\w+)\)", start, re.MULTILINE))


def test_an_old_cluster_outlasts_the_start_of_a_worker_and_a_photograph(
    overlay: str, settings: Settings
) -> None:
    probe = get_main_container(list_pod_templates(overlay)["ray-worker"])["startupProbe"]
    start = probe["periodSeconds"] * probe["failureThreshold"]
    spec = get_object(overlay, "RayService")["spec"]
    assert spec["upgradeStrategy"] == {"type": "NewCluster"}
    assert spec["rayClusterDeletionDelaySeconds"] >= start + settings.timeout


def test_a_stop_loses_nothing(overlay: str, settings: Settings) -> None:
    assert settings.grace >= settings.timeout
    worker = list_pod_templates(overlay)["ray-worker"]["spec"]
    wait = get_main_container(list_pod_templates(overlay)["ray-worker"])["lifecycle"]["preStop"][
        "sleep"
    ]["seconds"]
    assert wait >= settings.timeout + 10  # the last photograph, and the Service's news of it
    assert worker["terminationGracePeriodSeconds"] >= wait + 10
    triton_pod = list_pod_templates(overlay)["triton"]["spec"]
    wait = get_main_container(list_pod_templates(overlay)["triton"])["lifecycle"]["preStop"][
        "sleep"
    ]["seconds"]
    assert wait >= endpoints.RESOLVE_INTERVAL + 30  # as long as kubeadm's CoreDNS keeps a name
    assert triton_pod["terminationGracePeriodSeconds"] >= wait + 30  # --exit-timeout-secs


def test_replicas_are_spread(overlay: str) -> None:
    for role in ("ray-worker", "triton"):
        pod = list_pod_templates(overlay)[role]
        spread = pod["spec"]["topologySpreadConstraints"]
        assert "kubernetes.io/hostname" in [manifest["topologyKey"] for manifest in spread]
        for manifest in spread:
            wanted = manifest["labelSelector"]["matchLabels"]
            assert wanted.items() <= pod["metadata"]["labels"].items()
    assert get_object(overlay, "RayService")["spec"]["excludeHeadPodFromServeSvc"] is True


def test_as_many_workers_stay_as_ray_keeps() -> None:
    budget = get_object("production", "PodDisruptionBudget", "rehue-ray-worker")["spec"]
    assert budget["minAvailable"] == get_workers("production")["minReplicas"]


def test_names_that_objects_use_exist(overlay: str) -> None:
    held = {
        (manifest["kind"], manifest["metadata"]["name"]) for manifest in render_overlay(overlay)
    }
    for pod in list_pod_templates(overlay).values():
        assert ("ServiceAccount", pod["spec"]["serviceAccountName"]) in held
        claims = [
            volume["persistentVolumeClaim"]
            for volume in _list_volumes(pod, "persistentVolumeClaim")
        ]
        assert all(("PersistentVolumeClaim", claim["claimName"]) in held for claim in claims)
    for manifest in list_objects(overlay, "ScaledObject"):
        target = manifest["spec"]["scaleTargetRef"]["name"]
        assert ("Deployment", target) in held
        assert "replicas" not in get_object(overlay, "Deployment", target)["spec"]
    redis = get_cluster(overlay).get("gcsFaultToleranceOptions", {}).get("redisAddress")
    assert redis is None or ("Service", redis.partition(":")[0]) in held


def _list_volumes(pod: Object, kind: str) -> list[Any]:
    return [volume for volume in pod["spec"]["volumes"] if kind in volume]
