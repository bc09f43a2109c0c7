"""The manifests against the code: a renamed setting, port, path or RPC breaks these."""

import importlib
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from admission import parse_quantity
from grpc_health.v1 import health_pb2
from pod_security import list_violations
from ray.serve.schema import ServeDeploySchema
from rendered import (
    K8S,
    KUBECTL,
    OVERLAYS,
    ROOT,
    Object,
    get_main_container,
    get_object,
    list_containers,
    list_objects,
    list_pod_templates,
    list_services,
    render_overlay,
)
from rendered import read_settings as variables

from rehue_client.v1 import rehue_pb2
from rehue_serve import app, endpoints, http, local_ray, triton
from rehue_serve.service import Service
from rehue_serve.settings import Settings

AUTOSCALED = ("production",)
# What `rehue serve` sets for one machine's sake: paths and ports of its own, and no wait for
# load balancers in front. In a pod Ray's defaults do.
ONE_MACHINE = re.compile(
    r"RAY_SERVE_HAPROXY_(BINARY_PATH|CONFIG|SOCKET|METRICS_SOCKET|SERVER_STATE|STATS_PORT|METRICS_PORT)"
    r"|_MIN_DRAINING_PERIOD_S|_(HTTP|GRPC)_PORT|RAY_AUTH_"
)


def load_settings(overlay: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Return the settings as a pod reads them, except the file of keys."""
    for name, value in variables(overlay).items():
        monkeypatch.setenv(name, value)
    if variables(overlay)["REHUE_API_KEYS_FILE"]:
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


def test_every_variable_is_a_setting(overlay: str) -> None:
    known = {f"REHUE_{name.upper()}" for name in Settings.model_fields}
    assert set(variables(overlay)) <= known
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


def test_services_lead_to_the_settings_ports(overlay: str, settings: Settings) -> None:
    (service,) = [
        manifest for manifest in list_services(overlay) if manifest["metadata"]["name"] == "rehue"
    ]
    inside = list_ports(list_pod_templates(overlay)["ray-worker"])
    led = {port["name"]: inside[port["targetPort"]] for port in service["spec"]["ports"]}
    assert led == {"serve": settings.http_port, "serve-grpc": settings.grpc_port}
    clear = {port["name"]: port["appProtocol"] for port in service["spec"]["ports"]}
    assert clear == {"serve": "http", "serve-grpc": "kubernetes.io/h2c"}


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
        assert (
            f"COPY model_repository {_get_variable(models, 'REHUE_MODEL_SOURCE')}\n" in dockerfile
        )
        assert (
            _get_variable(models, "REHUE_MODEL_REPOSITORY")
            == _get_variable(plan, "REHUE_MODEL_REPOSITORY")
            == _get_variable(serve, "REHUE_MODEL_REPOSITORY")
        )
        assert (models["args"], plan["args"]) == (["models"], ["prepare"])
        assert serve["args"][0] == "serve"
        mounted = {mount["mountPath"] for mount in plan["volumeMounts"]}
        assert _get_variable(plan, "REHUE_PLAN_CACHE") in mounted
    assert {"models", "prepare", "serve"} <= set(re.findall(r"\w+", start))


@pytest.mark.parametrize("overlay", ["gpu", "production", "canary"])
def test_the_default_model_is_among_those_served(overlay: str) -> None:
    served = _get_variable(
        list_containers(list_pod_templates(overlay)["triton"])[0], "REHUE_MODELS"
    ).split(",")
    default = Settings.model_fields["model"].default
    assert variables(overlay).get("REHUE_MODEL", default) in served


@pytest.mark.parametrize("component", ["model-volume", "model-image", "model-bucket"])
def test_models_come_from_elsewhere_than_the_image(component: str, tmp_path: Path) -> None:
    """They are copied from where the component puts them, before plans are built."""
    deployment = get_only_deployment(render_with(component, tmp_path))
    pod = deployment["spec"]["template"]["spec"]
    *download, models, plan = pod["initContainers"]
    assert (models["name"], plan["name"]) == ("models", "plan")
    source = _get_variable(models, "REHUE_MODEL_SOURCE")
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


def test_as_many_workers_stay_as_ray_keeps() -> None:
    budget = get_object("production", "PodDisruptionBudget", "rehue-ray-worker")["spec"]
    assert budget["minAvailable"] == get_workers("production")["minReplicas"]


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


def test_nobody_changes_a_tritons_models(overlay: str) -> None:
    assert (
        "--model-control-mode=none"
        in get_main_container(list_pod_templates(overlay)["triton"])["args"]
    )


def _get_variable(container: Object, name: str) -> str:
    (found,) = [variable["value"] for variable in container["env"] if variable["name"] == name]
    return str(found)


def test_the_trial_serves_the_cpu_configurations() -> None:
    arguments = get_main_container(list_pod_templates("cpu")["triton"])["args"]
    name = next(
        argument for argument in arguments if argument.startswith("--model-config-name=")
    ).split("=")[1]
    models = [
        config.parents[1].name for config in ROOT.glob(f"model_repository/*/configs/{name}.pbtxt")
    ]
    assert variables("cpu").get("REHUE_MODEL", Settings.model_fields["model"].default) in models


def test_routes_are_the_applications() -> None:
    (route,) = list_objects("production", "HTTPRoute")
    (rule,) = route["spec"]["rules"]
    matches = [
        (route_match["path"]["type"], route_match["path"]["value"])
        for route_match in rule["matches"]
    ]
    found = endpoints.Endpoints((), model="rehue", limit=1)
    service = Service(Settings(), triton.TritonClient(found, default_model="rehue"))
    routes: Any = http.build_http_app(service).routes
    paths = {served.path for served in routes if "oauth2" not in served.path}
    covered = {
        path
        for path in paths
        for kind, value in matches
        if path == value or (kind == "PathPrefix" and path.startswith(f"{value}/"))
    }
    assert covered == paths
    for kind, value in matches:
        assert value in paths or kind == "PathPrefix", value
    assert not any(value.startswith("/-") for _, value in matches)


def test_the_gateway_waits_longer_than_the_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = load_settings("production", monkeypatch, tmp_path)
    (rule,) = get_object("production", "HTTPRoute")["spec"]["rules"]
    assert int(rule["timeouts"]["request"].removesuffix("s")) > settings.timeout
    # None for gRPC, whose streams last longer than a photograph.
    (policy,) = list_policies("GRPCRoute")
    assert policy["timeout"]["http"]["requestTimeout"] == "0s"


def test_the_gateway_takes_what_the_server_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = load_settings("production", monkeypatch, tmp_path).max_bytes
    (policy,) = list_policies("HTTPRoute")
    # With the 64 KiB of a form's own; not much more, which the server would refuse anyway.
    assert limit + 64 * 1024 < parse_quantity(policy["requestBuffer"]["limit"]) < 1.1 * limit
    assert "requestBuffer" not in list_policies("GRPCRoute")[0]


def list_policies(kind: str) -> list[Object]:
    """Return Envoy Gateway's policies for a kind of route; each has to name one that exists."""
    found = [manifest["spec"] for manifest in list_objects("production", "BackendTrafficPolicy")]
    name = get_object("production", kind)["metadata"]["name"]
    return [manifest for manifest in found if [(kind, name)] == [
        (ref["kind"], ref["name"]) for ref in manifest["targetRefs"]]]  # fmt: skip


def test_rpcs_are_the_servers() -> None:
    (rule,) = get_object("production", "GRPCRoute")["spec"]["rules"]
    routed = {route_match["method"]["service"] for route_match in rule["matches"]}
    assert routed == {
        service.full_name
        for file in (rehue_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR)
        for service in file.services_by_name.values()
    }


def test_routes_lead_somewhere() -> None:
    (gateway,) = list_objects("production", "Gateway")
    listeners = {
        found_listener["name"]: found_listener for found_listener in gateway["spec"]["listeners"]
    }
    services = {manifest["metadata"]["name"]: manifest for manifest in list_services("production")}
    for kind in ("HTTPRoute", "GRPCRoute"):
        spec = get_object("production", kind)["spec"]
        (parent,) = spec["parentRefs"]
        listener = listeners[parent["sectionName"]]
        assert parent["name"] == gateway["metadata"]["name"]
        assert spec["hostnames"] == [listener["hostname"]]
        assert {"kind": kind} in listener["allowedRoutes"]["kinds"]
        assert listener["tls"]["mode"] == "Terminate"
        (backend,) = spec["rules"][0]["backendRefs"]
        offered = [port["port"] for port in services[backend["name"]]["spec"]["ports"]]
        assert backend["port"] in offered


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


def test_versions_are_the_projects(overlay: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = (ROOT / "requirements" / "serve.lock").read_text()
    assert f"ray=={get_cluster(overlay)['rayVersion']} " in lock
    for pod in list_pod_templates(overlay).values():
        for container in list_containers(pod):
            name, _, tag = container["image"].partition(":")
            assert tag == project["version"] or not name.startswith("rehue/"), container["image"]
