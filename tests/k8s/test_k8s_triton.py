"""Triton's pods: their address, GPUs, models and start script."""

import re

import pytest
from cluster import get_variable, list_ports
from rendered import (
    K8S,
    ROOT,
    get_main_container,
    list_containers,
    list_objects,
    list_pod_templates,
    read_settings,
)

from rehue_serve.settings import Settings


def test_triton_is_where_the_settings_look(overlay: str, settings: Settings) -> None:
    (url,) = settings.triton_urls
    name, _, port = url.removeprefix("dns:").rpartition(":")
    assert url.startswith("dns:")
    (service,) = [
        manifest
        for manifest in list_objects(overlay, "Service")
        if manifest["metadata"]["name"] == name
    ]
    assert service["spec"]["clusterIP"] == "None"
    # A headless name gives the pods' addresses: the port is the container's own.
    (entry,) = service["spec"]["ports"]
    assert (
        entry["port"]
        == int(port)
        == list_ports(list_pod_templates(overlay)["triton"])[entry["targetPort"]]
        == 8001
    )


def test_one_gpu_a_triton_and_none_elsewhere(overlay: str) -> None:
    for role, pod in list_pod_templates(overlay).items():
        asked = [
            container["resources"]["limits"].get("nvidia.com/gpu", 0)
            for container in list_containers(pod)
        ]
        most = max(asked)  # containers of an init run before the others
        assert most == (1 if role == "triton" and overlay != "cpu" else 0), role


def test_tritons_steps_are_those_of_its_start_script() -> None:
    start = (K8S / "triton" / "start").read_text()
    dockerfile = (K8S / "triton" / "Dockerfile").read_text()
    for overlay in ("gpu", "production"):
        models, plan, serve = list_containers(list_pod_templates(overlay)["triton"])
        assert f"COPY model_repository {get_variable(models, 'REHUE_MODEL_SOURCE')}\n" in dockerfile
        assert (
            get_variable(models, "REHUE_MODEL_REPOSITORY")
            == get_variable(plan, "REHUE_MODEL_REPOSITORY")
            == get_variable(serve, "REHUE_MODEL_REPOSITORY")
        )
        assert (models["args"], plan["args"]) == (["models"], ["prepare"])
        assert serve["args"][0] == "serve"
        mounted = {mount["mountPath"] for mount in plan["volumeMounts"]}
        assert get_variable(plan, "REHUE_PLAN_CACHE") in mounted
    assert {"models", "prepare", "serve"} <= set(re.findall(r"\w+", start))


@pytest.mark.parametrize("overlay", ["gpu", "production", "canary"])
def test_the_default_model_is_among_those_served(overlay: str) -> None:
    served = get_variable(
        list_containers(list_pod_templates(overlay)["triton"])[0], "REHUE_MODELS"
    ).split(",")
    default = Settings.model_fields["model"].default
    assert read_settings(overlay).get("REHUE_MODEL", default) in served


def test_nobody_changes_a_tritons_models(overlay: str) -> None:
    assert (
        "--model-control-mode=none"
        in get_main_container(list_pod_templates(overlay)["triton"])["args"]
    )


def test_the_trial_serves_the_cpu_configurations() -> None:
    arguments = get_main_container(list_pod_templates("cpu")["triton"])["args"]
    name = next(
        argument for argument in arguments if argument.startswith("--model-config-name=")
    ).split("=")[1]
    models = [
        config.parents[1].name for config in ROOT.glob(f"model_repository/*/configs/{name}.pbtxt")
    ]
    assert read_settings("cpu").get("REHUE_MODEL", Settings.model_fields["model"].default) in models
