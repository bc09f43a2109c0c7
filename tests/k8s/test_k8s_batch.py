"""The RayJob of a bulk job: valid, restricted, and consistent with the command it runs."""

import argparse
import shlex

import pytest
from manifest_schemas import list_problems
from pod_security import list_violations
from rendered import Object, get_object, list_containers, list_objects, render_overlay

from rehue_serve.batch.command import add_batch_command
from rehue_serve.settings import Settings


@pytest.fixture(scope="module")
def cluster() -> Object:
    spec: Object = get_object("batch", "RayJob")["spec"]["rayClusterSpec"]
    return spec


@pytest.fixture(scope="module")
def pods() -> dict[str, Object]:
    """Pod templates by role."""
    spec = get_object("batch", "RayJob")["spec"]["rayClusterSpec"]
    templates = [spec["headGroupSpec"]["template"]]
    templates += [group["template"] for group in spec["workerGroupSpecs"]]
    return {template["metadata"]["labels"]["role"]: template for template in templates}


def test_every_object_is_valid_and_in_the_namespace() -> None:
    for manifest in render_overlay("batch"):
        assert list_problems(manifest) == []
        assert manifest["metadata"]["namespace"] == "rehue"


def test_what_is_broken_is_found() -> None:
    job = get_object("batch", "RayJob")
    assert list_problems(job | {"spec": job["spec"] | {"entryPoint": "rehue"}})
    cluster = job["spec"]["rayClusterSpec"] | {"headGroup": {}}
    assert list_problems(job | {"spec": job["spec"] | {"rayClusterSpec": cluster}})


@pytest.mark.parametrize("role", ["batch-head", "batch-worker"])
def test_pods_keep_to_the_profile_restricted(pods: dict[str, Object], role: str) -> None:
    assert list_violations(pods[role]) == []
    assert all(
        container["image"] == "rehue/serve:0.1.0" for container in list_containers(pods[role])
    )


def test_the_command_fits_the_cluster(cluster: Object) -> None:
    parser = argparse.ArgumentParser()
    add_batch_command(parser.add_subparsers())
    rehue, *words = shlex.split(get_object("batch", "RayJob")["spec"]["entrypoint"])
    arguments = parser.parse_args(words)
    assert rehue == "rehue"
    assert arguments.address == "auto"
    (workers,) = cluster["workerGroupSpecs"]
    assert arguments.workers == workers["replicas"] == workers["maxReplicas"]
    assert workers["rayStartParams"]["num-cpus"] == "1"


def test_settings_exist_and_name_the_tritons(pods: dict[str, Object]) -> None:
    known = {f"REHUE_{name.upper()}" for name in Settings.model_fields}
    for pod in pods.values():
        (container,) = list_containers(pod)
        values = {entry["name"]: entry["value"] for entry in container["env"]}
        assert {name for name in values if name.startswith("REHUE_")} <= known
        served = get_object("gpu", "ConfigMap", "rehue-settings")["data"]["REHUE_TRITON_URLS"]
        assert values["REHUE_TRITON_URLS"] == served


def test_the_job_reaches_tritons_and_stores_and_nobody_else_reaches_it() -> None:
    policies = {
        manifest["metadata"]["name"]: manifest["spec"]
        for manifest in list_objects("batch", "NetworkPolicy")
    }
    triton = policies["batch-to-triton"]
    assert triton["podSelector"]["matchLabels"] == {"app": "rehue", "role": "triton"}
    ports = [port["port"] for rule in policies["batch"]["egress"] for port in rule.get("ports", [])]
    assert ports == [8001, 443]
    roles = {"batch-head", "batch-worker"}
    assert set(policies["batch"]["podSelector"]["matchExpressions"][0]["values"]) == roles
    # No Service of the server's may send its requests to the job's pods.
    for service in list_objects("gpu", "Service"):
        assert service["spec"]["selector"].get("role") not in roles
