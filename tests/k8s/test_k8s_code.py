"""The manifests against the code: a renamed setting, port or version breaks these."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from cluster import get_cluster, get_serve_config, get_workers, list_ports
from ray.serve.schema import ServeDeploySchema
from rendered import (
    K8S,
    ROOT,
    get_main_container,
    get_object,
    list_containers,
    list_objects,
    list_pod_templates,
    list_services,
    read_settings,
)

from rehue_serve import app, local_ray
from rehue_serve.settings import Settings

AUTOSCALED = ("production",)
# `rehue serve` sets these for a single machine: its own paths and ports, and no wait for load
# balancers. Pods keep Ray's defaults.
ONE_MACHINE = re.compile(
    r"RAY_SERVE_HAPROXY_(BINARY_PATH|CONFIG|SOCKET|METRICS_SOCKET|SERVER_STATE|STATS_PORT|METRICS_PORT)"
    r"|_MIN_DRAINING_PERIOD_S|_(HTTP|GRPC)_PORT|RAY_AUTH_"
)


def test_every_variable_is_a_setting(overlay: str) -> None:
    known = {f"REHUE_{name.upper()}" for name in Settings.model_fields}
    assert set(read_settings(overlay)) <= known
    start = (K8S / "triton" / "start").read_text()
    for role, pod in list_pod_templates(overlay).items():
        for container in list_containers(pod):
            names = {variable["name"] for variable in container.get("env", [])}
            read = {name for name in names if f"${{{name}:" in start}
            assert names == read, f"{role}: {names - read}"


def test_the_settings_are_those_of_a_cluster(overlay: str, settings: Settings) -> None:
    assert settings.host == "0.0.0.0"
    assert settings.replicas == get_workers(overlay)["minReplicas"]
    if overlay not in AUTOSCALED:
        assert (
            settings.replicas
            == get_workers(overlay)["maxReplicas"]
            == get_workers(overlay)["replicas"]
        )
    # os.cpu_count() in a container says how many cores the node has.
    assert settings.threads == int(get_workers(overlay)["rayStartParams"]["num-cpus"])
    assert get_cluster(overlay)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_ray_serves_what_rehue_serve_serves(overlay: str, settings: Settings) -> None:
    """The configuration is the one that the same settings give on one machine."""
    given = get_serve_config(overlay)
    ServeDeploySchema.model_validate(given)
    (application,) = given["applications"]
    (deployment,) = application["deployments"]
    scaling = deployment.pop("autoscaling_config", None)
    options = app.build_grpc_options(settings)
    assert given == {
        "proxy_location": "EveryNode",
        "http_options": {"host": settings.host, "port": settings.http_port},
        "grpc_options": {
            "port": options.port,
            "grpc_servicer_functions": options.grpc_servicer_functions,
        },
        "applications": [
            {
                "name": app.NAME,
                "route_prefix": "/",
                "import_path": f"{app.build.__module__}:{app.build.__name__}",
                "deployments": [
                    {
                        "name": app.Colorizer.name,  # type: ignore[attr-defined]
                        "max_replicas_per_node": 1,
                        "max_surge_percent": 0,
                        "ray_actor_options": {"num_cpus": settings.threads},
                    }
                ],
            }
        ],
    }
    assert (scaling is not None) is (overlay in AUTOSCALED)
    if scaling:
        assert scaling["min_replicas"] == get_workers(overlay)["minReplicas"]
        assert scaling["max_replicas"] == get_workers(overlay)["maxReplicas"]
        assert scaling["target_ongoing_requests"] < settings.max_requests


def test_servicer_functions_exist() -> None:
    for path in app.SERVICERS:
        module, _, name = path.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))


def test_ray_reads_the_same_environment_on_every_node(overlay: str, settings: Settings) -> None:
    alone = local_ray.build_ray_environment(settings, Path("/nowhere"))
    shared = {name: value for name, value in alone.items() if not ONE_MACHINE.search(name)}
    shared["RAY_SERVE_HAPROXY_BINARY_PATH"] = "/opt/rehue/bin/rehue-haproxy"  # in the image
    # One machine has no silent nodes, and its head is never replaced.
    shared["RAY_grpc_client_keepalive_timeout_ms"] = "20000"
    shared["RAY_SERVE_HAPROXY_BROADCAST_COALESCE_S"] = "2"
    assert get_object(overlay, "ConfigMap", "rehue-ray")["data"] == shared
    # Under their generated names: a changed setting makes KubeRay start a new cluster.
    names = [manifest["metadata"]["name"] for manifest in list_objects(overlay, "ConfigMap")]
    expected = [n for n in names if re.fullmatch(r"rehue-(ray|settings)-[a-z0-9]{10}", n)]
    assert len(expected) == 2
    for role in ("ray-head", "ray-worker"):
        given = [
            source["configMapRef"]["name"]
            for source in get_main_container(list_pod_templates(overlay)[role])["envFrom"]
        ]
        assert sorted(given) == sorted(expected)


def test_a_lost_head_is_waited_for(overlay: str) -> None:
    """Ray reads the limits by the names that ray.env gives them.

    `test_k8s_hosts.py` loses a head.
    """
    code = (
        "from ray._raylet import Config; from ray.serve._private import deployment_state as state;"
        "from ray.serve._private.constants import RAY_SERVE_HAPROXY_BROADCAST_COALESCE_S as wait;"
        "print(state.SLOW_STARTUP_WARNING_S, Config.grpc_client_keepalive_timeout_ms(), wait)"
    )
    environment = os.environ | get_object(overlay, "ConfigMap", "rehue-ray")["data"]
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    # As long as workers wait, RAY_gcs_rpc_server_reconnect_timeout_s, which KubeRay sets.
    assert done.stdout.split() == ["600", "20000", "2.0"]


def test_ports_are_the_settings(overlay: str, settings: Settings) -> None:
    worker, head = (
        list_ports(list_pod_templates(overlay)["ray-worker"]),
        list_ports(list_pod_templates(overlay)["ray-head"]),
    )
    assert worker == {
        "serve": settings.http_port,
        "serve-grpc": settings.grpc_port,
        "metrics": settings.metrics_port,
    }
    # Where KubeRay looks for the ports of the Service.
    assert (head["serve"], head["serve-grpc"]) == (settings.http_port, settings.grpc_port)
    assert head["metrics"] == settings.metrics_port
    for group in (get_cluster(overlay)["headGroupSpec"], get_workers(overlay)):
        assert group["rayStartParams"]["metrics-export-port"] == str(settings.metrics_port)
        assert int(group["rayStartParams"]["object-store-memory"]) == local_ray.OBJECT_STORE_BYTES


def test_services_lead_to_the_settings_ports(overlay: str, settings: Settings) -> None:
    (service,) = [
        manifest for manifest in list_services(overlay) if manifest["metadata"]["name"] == "rehue"
    ]
    inside = list_ports(list_pod_templates(overlay)["ray-worker"])
    led = {port["name"]: inside[port["targetPort"]] for port in service["spec"]["ports"]}
    assert led == {"serve": settings.http_port, "serve-grpc": settings.grpc_port}
    clear = {port["name"]: port["appProtocol"] for port in service["spec"]["ports"]}
    assert clear == {"serve": "http", "serve-grpc": "kubernetes.io/h2c"}


def test_versions_are_the_projects(overlay: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = (ROOT / "requirements" / "serve.lock").read_text()
    assert f"ray=={get_cluster(overlay)['rayVersion']} " in lock
    for pod in list_pod_templates(overlay).values():
        for container in list_containers(pod):
            name, _, tag = container["image"].partition(":")
            assert tag == project["version"] or not name.startswith("rehue/"), container["image"]
