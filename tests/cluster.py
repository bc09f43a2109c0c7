"""The RayService's parts, the settings of its pods, and components added to an overlay."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from rendered import (
    K8S,
    KUBECTL,
    OVERLAYS,
    Object,
    get_main_container,
    get_object,
    read_settings,
)

from rehue_serve.settings import Settings


def load_settings(overlay: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Return the settings as a pod reads them, except the file of keys."""
    for name, value in read_settings(overlay).items():
        monkeypatch.setenv(name, value)
    if read_settings(overlay)["REHUE_API_KEYS_FILE"]:
        (tmp_path / "keys").write_text("a-key\n")
        monkeypatch.setenv("REHUE_API_KEYS_FILE", str(tmp_path / "keys"))
    return Settings()


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def settings(overlay: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    return load_settings(overlay, monkeypatch, tmp_path)


def get_cluster(overlay: str) -> Object:
    found: Object = get_object(overlay, "RayService")["spec"]["rayClusterConfig"]
    return found


def get_workers(overlay: str) -> Object:
    (group,) = get_cluster(overlay)["workerGroupSpecs"]
    found: Object = group
    return found


def get_serve_config(overlay: str) -> Object:
    found: Object = yaml.safe_load(get_object(overlay, "RayService")["spec"]["serveConfigV2"])
    return found


def list_ports(pod: Object) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in get_main_container(pod)["ports"]}


def render_with(component: str, folder: Path) -> list[Object]:
    """The objects of the overlay `gpu` with one more component."""
    shutil.copytree(K8S, folder / "k8s")
    overlay = folder / "k8s" / "overlays" / "more"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(
        f"resources: [../gpu]\ncomponents: [../../components/{component}]\n"
    )
    command = [KUBECTL, "kustomize", overlay]
    made = subprocess.run(command, capture_output=True, text=True, check=True)  # type: ignore[arg-type]
    return [manifest for manifest in yaml.safe_load_all(made.stdout) if manifest]


def get_only_deployment(rendered: list[Object]) -> Object:
    (found,) = [manifest for manifest in rendered if manifest["kind"] == "Deployment"]
    return found


def get_variable(container: Object, name: str) -> str:
    (found,) = [variable["value"] for variable in container["env"] if variable["name"] == name]
    return str(found)
