"""The manifests' RayService on a real Ray node, started and deployed to as KubeRay does.

There is one node, the head with a worker's cores, on its own ports.
KubeRay's requests are those of its dashboard client (RayDashboardClient).
"""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
import yaml
from ray.core.generated import ray_client_pb2
from ray_node import call_ray, kill_node
from rendered import Object, get_main_container, get_object, list_pod_templates
from rendered import read_settings as variables

from rehue_client import Client, Overloaded
from rehue_serve.local_ray import build_ray_environment
from rehue_serve.ports import claim_free_ports
from rehue_serve.settings import Settings
from rehue_serve.testing.servers import START_TIMEOUT
from rehue_serve.testing.tritons import SleepingTriton

RAY = Path(sys.executable).with_name("ray")
PING = ray_client_pb2.ClusterInfoRequest(type="PING").SerializeToString()
APPLICATIONS = "/api/serve/applications/"
RPCS = {
    "gcs-server": ("/ray.rpc.NodeInfoGcsService/GetAllNodeInfo", b""),
    "client": ("/ray.rpc.RayletDriver/ClusterInfo", PING),
}
PORTS = ("gcs-server", "dashboard", "client", "serve", "grpc", "metrics", "agent", "runtime")


@dataclass(frozen=True)
class Node:
    """A Ray node: its ports by their names in the manifests, and the cluster's two secrets."""

    process: "subprocess.Popen[bytes]"
    log: Path
    ports: dict[str, int]
    token: str
    key: str

    def url(self, port: str) -> str:
        return f"http://127.0.0.1:{self.ports[port]}"

    def dashboard(self, token: str = "") -> httpx.Client:
        """Send a request with the token, as KubeRay's operator does."""
        headers = {"x-ray-authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url("dashboard"), headers=headers, timeout=60)

    def wait(self, port: str, path: str) -> None:
        """Wait until a request without the token succeeds."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(self.url(port) + path).is_success:
                    return
            time.sleep(0.2)
        raise AssertionError(f"no answer from {path}:\n{self.log.read_text()}")


def get_service(overlay: str) -> Object:
    found: Object = get_object(overlay, "RayService")["spec"]
    return found


def get_serve_config(overlay: str, node: Node) -> Object:
    """Return serveConfigV2 for one node, with its ports."""
    found: Object = yaml.safe_load(get_service(overlay)["serveConfigV2"])
    found["http_options"]["port"] = node.ports["serve"]
    found["grpc_options"]["port"] = node.ports["grpc"]
    for deployment in found["applications"][0]["deployments"]:
        if "autoscaling_config" in deployment:
            deployment["autoscaling_config"]["min_replicas"] = 1
    return found


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    base = tmp_path_factory.mktemp("node")
    ports = dict(zip(PORTS, claim_free_ports(len(PORTS)), strict=True))
    token, key = secrets.token_hex(32), secrets.token_hex(8)
    (base / "keys").write_text(f"{key}\n{key}-limited name=museum daily=1\n")
    with contextlib.ExitStack() as stack:
        # Unix sockets in it: the path has to be short.
        directory = Path(tempfile.mkdtemp(prefix="rehue-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        triton = stack.enter_context(SleepingTriton(base / "triton"))
        # A pod's ports and paths are its own; here others may have Ray's defaults.
        alone = build_ray_environment(Settings(), directory)
        environment = {name: value for name, value in alone.items() if "AUTH" not in name}
        environment |= get_object("production", "ConfigMap", "rehue-ray")["data"]
        environment |= variables("production")
        environment |= {
            "REHUE_TRITON_URLS": f"dns:localhost:{triton.grpc_port}",
            "REHUE_API_KEYS_FILE": str(base / "keys"),
            "REHUE_LOG_FILE": str(base / "application.log"),
            "REHUE_REPLICAS": "1",
            # The image's path is not this machine's.
            "RAY_SERVE_HAPROXY_BINARY_PATH": alone["RAY_SERVE_HAPROXY_BINARY_PATH"],
        }
        if get_service("production")["rayClusterConfig"].get("authOptions") == {"mode": "token"}:
            environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}  # as KubeRay sets it
        with (base / "log").open("w") as out:
            process = subprocess.Popen(
                [RAY, "start", "--head", "--block", *list_start_parameters(ports, directory)],
                env=os.environ | environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        stack.callback(process.wait)
        stack.callback(kill_node, psutil.Process(process.pid))
        made = Node(process, base / "log", ports, token, key)
        ready = get_main_container(list_pod_templates("production")["ray-head"])["readinessProbe"][
            "httpGet"
        ]
        made.wait(ready["port"], ready["path"])
        yield made


def list_start_parameters(ports: dict[str, int], directory: Path) -> list[str]:
    """List the head's rayStartParams, except those that collide with others on this machine."""
    cluster = get_service("production")["rayClusterConfig"]
    given: dict[str, str] = cluster["headGroupSpec"]["rayStartParams"] | {
        "num-cpus": cluster["workerGroupSpecs"][0]["rayStartParams"]["num-cpus"],
        "node-ip-address": "127.0.0.1",
        "dashboard-host": "127.0.0.1",
        "temp-dir": str(directory / "ray"),
        "port": str(ports["gcs-server"]),
        "dashboard-port": str(ports["dashboard"]),
        "dashboard-agent-listen-port": str(ports["agent"]),
        "runtime-env-agent-port": str(ports["runtime"]),
        "ray-client-server-port": str(ports["client"]),
        "metrics-export-port": str(ports["metrics"]),
        "min-worker-port": "0",  # any; Ray's own range holds some of these
        "max-worker-port": "0",
    }
    return [f"--{name}={value}" for name, value in given.items()]


def test_kubelets_and_prometheus_need_no_token(node: Node) -> None:
    """Nor does the head's readiness probe, which `node` has waited for."""
    for role in ("ray-head", "ray-worker"):
        for probe in ("startupProbe", "livenessProbe"):
            node.wait(
                "agent",
                get_main_container(list_pod_templates("production")[role])[probe]["httpGet"][
                    "path"
                ],
            )
    node.wait("metrics", "/metrics")


@pytest.mark.parametrize("token", ["", "a" * 64])
def test_nobody_deploys_without_the_token(node: Node, token: str) -> None:
    """Anyone who reaches the dashboard could otherwise run code on every node."""
    with node.dashboard(token) as anybody:
        answers = [
            anybody.put(APPLICATIONS, json=get_serve_config("gpu", node)),
            anybody.get(APPLICATIONS),
            anybody.post("/api/jobs/", json={"entrypoint": "true"}),
            anybody.get("/api/jobs/"),
        ]
    assert {answer.status_code for answer in answers} == {403 if token else 401}
    for port, call in RPCS.items():
        with pytest.raises(grpc.RpcError) as caught:
            call_ray(f"127.0.0.1:{node.ports[port]}", *call, token)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED, port


def test_who_has_the_token_is_answered(node: Node) -> None:
    """So the refusals above are for the missing token."""
    for port, call in RPCS.items():
        assert call_ray(f"127.0.0.1:{node.ports[port]}", *call, node.token), port


@pytest.mark.parametrize("overlay", ["gpu", "production"])
def test_what_kuberay_deploys_colorizes(node: Node, photo: bytes, overlay: str) -> None:
    with node.dashboard(node.token) as operator:
        output = operator.put(APPLICATIONS, json=get_serve_config(overlay, node))
        assert output.is_success, output.text
        deadline = time.monotonic() + START_TIMEOUT
        while (state := get_application(operator))["status"] != "RUNNING":
            assert state["status"] != "DEPLOY_FAILED", state["message"]
            assert time.monotonic() < deadline, state
            time.sleep(0.2)
    (asked_for,) = get_serve_config(overlay, node)["applications"][0]["deployments"]
    scaled = state["deployments"]["Colorizer"]["deployment_config"].get("autoscaling_config") or {}
    assert scaled.items() >= asked_for.get("autoscaling_config", {}).items()
    assert bool(scaled) is (overlay == "production")
    probe = get_main_container(list_pod_templates(overlay)["ray-worker"])["readinessProbe"][
        "httpGet"
    ]
    node.wait(probe["port"], probe["path"])
    node.wait("serve", "/readyz")
    refused = httpx.post(node.url("serve") + "/v1/colorize", content=photo)
    assert refused.status_code == 401
    for url in (node.url("serve"), f"grpc://127.0.0.1:{node.ports['grpc']}"):
        with Client(url, api_key=node.key) as client:
            assert client.colorize(photo).data


def test_a_key_may_send_its_quota(node: Node, photo: bytes) -> None:
    """In the one replica here; after the test above, which deployed it."""
    headers = {"Authorization": f"Bearer {node.key}-limited"}
    answers = [
        httpx.post(node.url("serve") + "/v1/colorize", content=photo, headers=headers)
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert 0 < int(answers[1].headers["Retry-After"]) <= 86400
    assert "quota is used up" in answers[1].json()["title"]
    with (
        Client(f"grpc://127.0.0.1:{node.ports['grpc']}", api_key=f"{node.key}-limited") as client,
        pytest.raises(Overloaded, match="photographs for today"),
    ):
        client.colorize(photo, timeout=5)
    deadline = time.monotonic() + 60  # Ray exports every 10 s
    while 'name="museum"' not in (text := httpx.get(node.url("metrics") + "/metrics").text):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert node.key not in text


def get_application(operator: httpx.Client) -> Object:
    """Return the application's state as KubeRay reads it."""
    answer = operator.get(APPLICATIONS, params={"api_type": "declarative"})
    found: Object = answer.json()["applications"]["rehue"]
    return found
