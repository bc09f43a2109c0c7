"""k8s/upgrade with the real kubectl, on an API where a thread changes statuses as KubeRay does."""

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import apiserver
import pytest
import yaml
from rendered import K8S, KUBECTL, Object, get_object, render_overlay
from server_side_apply import Cluster

SERVICE = ("ray.io/v1", "RayService", "rehue", "rehue")


class KubeRay(threading.Thread):
    """The part of KubeRay's operator that names, starts and switches Ray clusters.

    As in calculateStatus of its 1.7: it notes a generation together with the name of the second
    cluster, if the specification without numbers of replicas is another one.
    """

    def __init__(self, cluster: Cluster, *, second_is_ready: bool) -> None:
        super().__init__(daemon=True)
        self._cluster = cluster
        self._second_is_ready = second_is_ready
        self._stopped = threading.Event()
        self._served = ""
        self.minima: list[tuple[str, int]] = []  # of each generation, with the cluster that served

    def run(self) -> None:
        while not self._stopped.wait(0.3):
            with self._cluster.lock:
                if SERVICE in self._cluster.objects:
                    self._reconcile(self._cluster.objects[SERVICE])

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def _reconcile(self, service: Object) -> None:
        status = service.setdefault("status", {})
        active = status.setdefault("activeServiceStatus", {})
        pending = status.setdefault("pendingServiceStatus", {})
        wanted = remove_replicas(service["spec"]["rayClusterConfig"])
        if pending:
            if self._second_is_ready:
                status["activeServiceStatus"], status["pendingServiceStatus"] = pending, {}
                self._served = wanted
        elif not active:
            active["rayClusterName"], self._served = "rehue-first", wanted
        elif wanted != self._served:
            pending["rayClusterName"] = "rehue-second"
        if service["metadata"]["generation"] != status.get("observedGeneration"):
            status["observedGeneration"] = service["metadata"]["generation"]
            name = status["activeServiceStatus"]["rayClusterName"]
            self.minima.append((name, read_minimum(service)))


def remove_replicas(configuration: Object) -> str:
    """Return what KubeRay compares (GenerateHashWithoutReplicasAndWorkersToDelete)."""
    numbers = {"replicas", "minReplicas", "maxReplicas"}
    groups = [
        {name: value for name, value in group.items() if name not in numbers}
        for group in configuration["workerGroupSpecs"]
    ]
    return str(configuration | {"workerGroupSpecs": groups})


def read_minimum(service: Object) -> int:
    (deployment,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"][0][
        "deployments"
    ]
    minimum: int = deployment["autoscaling_config"]["min_replicas"]
    return minimum


class Installation:
    """`production` as it runs with a number of workers."""

    def __init__(self, cluster: Cluster, kuberay: KubeRay, url: str, folder: Path) -> None:
        self.cluster = cluster
        self.kuberay = kuberay
        self.overlay = write_new_version(folder)
        self._kubectl = f"{KUBECTL} --server={url}"
        self._home = folder

    def set_workers(self, count: int) -> None:
        for manifest in render_overlay("production"):
            self.cluster.apply(manifest, "kubectl")
        while "status" not in self.cluster.objects[SERVICE]:
            pass
        key = ("ray.io/v1", "RayCluster", "rehue", "rehue-first")
        self.cluster.objects[key] = {
            "apiVersion": "ray.io/v1",
            "kind": "RayCluster",
            "metadata": {"name": "rehue-first", "namespace": "rehue"},
            "status": {"desiredWorkerReplicas": count},
        }

    def upgrade(self, timeout: int = 60) -> "subprocess.CompletedProcess[str]":
        environment = {
            "KUBECTL": self._kubectl,
            "KUBECONFIG": "/dev/null",
            "HOME": str(self._home),
            "PATH": os.environ["PATH"],
            "REHUE_UPGRADE_TIMEOUT": str(timeout),
            "REHUE_UPGRADE_INTERVAL": "0.2",
        }
        return subprocess.run(
            [K8S / "upgrade", self.overlay],
            env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip


def write_new_version(folder: Path) -> Path:
    """Write an overlay like `production` with another serve image."""
    overlay = folder.resolve() / "new"
    overlay.mkdir()
    way = os.path.relpath(K8S, overlay)
    (overlay / "kustomization.yaml").write_text(
        f"resources: [{way}/overlays/production]\nimages: [{{name: rehue/serve, newTag: 9.9.9}}]\n"
    )
    return overlay


Install = Callable[..., contextlib.AbstractContextManager[Installation]]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    @contextlib.contextmanager
    def run(*, second_is_ready: bool = True) -> Iterator[Installation]:
        cluster = Cluster()
        server = apiserver.start_server(cluster)
        host, port = server.server_address[:2]
        kuberay = KubeRay(cluster, second_is_ready=second_is_ready)
        kuberay.start()
        try:
            yield Installation(cluster, kuberay, f"http://{host!s}:{port}", tmp_path)
        finally:
            kuberay.stop()
            server.shutdown()
            server.server_close()

    return run


@pytest.mark.parametrize(("workers", "raised"), [(5, 5), (40, 16), (1, 2)])
def test_the_second_cluster_starts_as_large_as_the_first(
    install: Install, workers: int, raised: int
) -> None:
    """And at most as large as the overlay allows; once it serves, the minimum is the overlay's."""
    with install() as installation:
        installation.set_workers(workers)
        done = installation.upgrade()
        assert done.returncode == 0, done.stderr
        service = installation.cluster.objects[SERVICE]
    minimum = read_minimum(get_object("production", "RayService"))
    assert installation.kuberay.minima[:2] == [("rehue-first", minimum), ("rehue-first", raised)]
    assert read_minimum(service) == minimum
    assert service["status"]["activeServiceStatus"]["rayClusterName"] == "rehue-second"
    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert group["minReplicas"] == minimum
    assert group["template"]["spec"]["containers"][0]["image"] == "rehue/serve:9.9.9"


def test_the_minimum_stays_raised_while_the_second_cluster_is_not_ready(install: Install) -> None:
    with install(second_is_ready=False) as installation:
        installation.set_workers(5)
        done = installation.upgrade(timeout=3)
        assert (done.returncode, "not ready after 3 s" in done.stderr) == (1, True)
        assert read_minimum(installation.cluster.objects[SERVICE]) == 5
        again = installation.upgrade()
        assert (again.returncode, "is under way" in again.stderr) == (1, True)


def test_a_first_installation_is_applied_as_it_is(install: Install) -> None:
    with install() as installation:
        done = installation.upgrade()
        assert done.returncode == 0, done.stderr
        assert installation.cluster.objects[SERVICE]["metadata"]["generation"] == 1
