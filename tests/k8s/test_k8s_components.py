"""Optional components: models from elsewhere, spot nodes, slices of a GPU, a runtime class."""

from pathlib import Path

import pytest
from cluster import get_only_deployment, get_variable, render_with
from pod_security import list_violations
from rendered import (
    list_containers,
)


@pytest.mark.parametrize("component", ["model-volume", "model-image", "model-bucket"])
def test_models_come_from_elsewhere_than_the_image(component: str, tmp_path: Path) -> None:
    """They are copied from where the component puts them, before plans are built."""
    deployment = get_only_deployment(render_with(component, tmp_path))
    pod = deployment["spec"]["template"]["spec"]
    *download, models, plan = pod["initContainers"]
    assert (models["name"], plan["name"]) == ("models", "plan")
    source = get_variable(models, "REHUE_MODEL_SOURCE")
    mounts = {
        volume_mount["mountPath"]: volume_mount["name"] for volume_mount in models["volumeMounts"]
    }
    assert mounts[source] in {volume["name"] for volume in pod["volumes"]}
    for container in download:
        assert {
            volume_mount["mountPath"]: volume_mount["name"]
            for volume_mount in container["volumeMounts"]
        }[source]
        assert container["args"][-1] == source
    assert bool(download) is (component == "model-bucket")
    assert not list_violations(deployment["spec"]["template"])


def test_everything_of_a_stop_fits_into_a_spot_nodes_notice(tmp_path: Path) -> None:
    """The kubelet kills what has not ended; 30 s is the shortest notice with a grace period."""
    rendered = render_with("spot", tmp_path)
    pods = [get_only_deployment(rendered)["spec"]["template"]["spec"]]
    (service,) = [manifest for manifest in rendered if manifest["kind"] == "RayService"]
    cluster = service["spec"]["rayClusterConfig"]
    pods.append(cluster["workerGroupSpecs"][0]["template"]["spec"])
    for pod in pods:
        wait = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert wait + 10 <= pod["terminationGracePeriodSeconds"] < 30
        assert any("spot" in toleration["key"] for toleration in pod["tolerations"])
    assert "tolerations" not in cluster["headGroupSpec"]["template"]["spec"]
    settings = {
        name: value
        for manifest in rendered if manifest["kind"] == "ConfigMap"
        for name, value in manifest["data"].items()
    }  # fmt: skip
    assert int(settings["REHUE_GRACE"]) == int(settings["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"])
    assert int(settings["REHUE_GRACE"]) <= 15


def test_a_slice_takes_the_place_of_the_gpu(tmp_path: Path) -> None:
    pod = get_only_deployment(render_with("mig", tmp_path))["spec"]["template"]["spec"]
    held = {
        container["name"]: {
            name: resources[name]
            for resources in container["resources"].values()
            for name in resources
            if name.startswith("nvidia.com/")
        }
        for container in list_containers({"spec": pod})
    }
    slice = {"nvidia.com/mig-1g.10gb": 1}
    assert held == {"models": {}, "plan": slice, "triton": slice}


def test_tritons_get_the_runtime_class(tmp_path: Path) -> None:
    pod = get_only_deployment(render_with("runtime-class", tmp_path))["spec"]["template"]["spec"]
    assert pod["runtimeClassName"] == "nvidia"
