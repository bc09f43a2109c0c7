"""The Compose files agree with the images and with the settings. Docker itself is not run."""

import re
from typing import Any

import pytest
import yaml
from paths import ROOT

from rehue_serve.settings import Settings

PARTS = ("compose.yaml", "compose.gpu.yaml")
KNOWN = {
    "build", "cap_drop", "depends_on", "deploy", "environment", "image", "ports", "read_only",
    "restart", "security_opt", "shm_size", "stop_grace_period", "tmpfs", "volumes",
}  # fmt: skip


def read_services(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / name).read_text())["services"])


@pytest.mark.parametrize("name", PARTS)
def test_images_are_those_of_the_dockerfiles(name: str) -> None:
    for service in read_services(name).values():
        assert service.keys() <= KNOWN
        dockerfile = (ROOT / service["build"]["dockerfile"]).read_text()
        title, tag = service["image"].split(":")
        assert f'image.title="{title}"' in dockerfile
        assert f'image.version="{tag}"' in dockerfile
        assert "HEALTHCHECK" in dockerfile  # what depends_on waits for


def test_settings_exist_and_ports_are_the_servers() -> None:
    service = read_services("compose.yaml")["rehue"]
    fields = {f"REHUE_{name.upper()}" for name in Settings.model_fields}
    assert service["environment"].keys() <= fields
    ports = [port.split(":") for port in service["ports"]]
    assert all(address == "127.0.0.1" for address, _, _ in ports)
    defaults = Settings()
    expected = {defaults.http_port, defaults.grpc_port, defaults.metrics_port}
    assert {int(inside) for _, _, inside in ports} == expected
    host, _, port = service["environment"]["REHUE_TRITON_URLS"].partition(":")
    assert host in read_services("compose.yaml")
    assert port == "8001"
    assert float(service["stop_grace_period"].removesuffix("s")) > defaults.grace


def test_the_gpu_file_changes_what_is_there() -> None:
    assert read_services("compose.gpu.yaml").keys() <= read_services("compose.yaml").keys()
    start = (ROOT / "k8s" / "triton" / "start").read_text()
    service = read_services("compose.gpu.yaml")["triton"]
    for variable in service["environment"]:
        assert re.search(rf"^# {variable}\b", start, re.MULTILINE)
