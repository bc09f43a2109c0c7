"""Alerts, dashboard, scaling and traces: what they name exists."""

import re
import shutil
import subprocess

import pytest
import yaml
from promql import Selectors, list_exported_metrics, list_expressions, list_rules
from rendered import (
    K8S,
    KUBECTL,
    ROOT,
    get_main_container,
    get_object,
    list_objects,
    list_pod_templates,
    matches_selector,
)

from rehue_serve import metrics, tracing
from rehue_serve.errors import get_reason_name
from rehue_serve.settings import Settings
from rehue_serve.statuses import HTTP_STATUS

OUTCOMES = {"ok", "ABANDONED", "QUOTA", *map(get_reason_name, HTTP_STATUS)}


def test_every_label_exists() -> None:
    for expression in list_expressions():
        for selector in Selectors(expression):
            labels = list_exported_metrics().get(selector.name)  # type: ignore[arg-type]
            for matcher in selector.matchers.matchers if labels is not None else []:
                assert matcher.name in labels | {"namespace"}, expression  # type: ignore[operator]
                if matcher.name == "outcome":
                    assert set(matcher.value.split("|")) <= OUTCOMES, expression


def test_the_applications_labels_win() -> None:
    """Prometheus renames a series' label that the operator gives to its target too."""
    targets = {"container", "endpoint", "instance", "job", "namespace", "pod"}
    if set.union(*list_exported_metrics().values()) & targets:
        (entry,) = get_object("gpu", "PodMonitor", "rehue-ray")["spec"]["podMetricsEndpoints"]
        assert entry["honorLabels"] is True


def test_monitors_read_ports_that_are_there() -> None:
    for overlay in ("gpu", "production", "canary"):
        read = set()
        for manifest in list_objects(overlay, "PodMonitor"):
            (entry,) = manifest["spec"]["podMetricsEndpoints"]
            for role, pod in list_pod_templates(overlay).items():
                if matches_selector(manifest["spec"]["selector"], pod["metadata"]["labels"]):
                    assert entry["port"] in [
                        port["name"] for port in get_main_container(pod)["ports"]
                    ], role
                    read.add(role)
        assert read == {"ray-head", "ray-worker", "triton"}


def test_tritons_are_counted_by_what_their_colorizers_see() -> None:
    (trigger,) = get_object("production", "ScaledObject")["spec"]["triggers"]
    over, under = Selectors(trigger["metadata"]["query"])
    assert over.name == "ray_rehue_stage_seconds_sum"
    assert ("stage", "infer") in {(each.name, each.value) for each in over.matchers.matchers}
    assert under.name == "up"
    # What one Triton executes at a time; the threshold is below it, and the query's most, which
    # asks for twice the Tritons, above.
    config = (ROOT / "model_repository" / "rehue" / "configs" / "gpu.pbtxt").read_text()
    batch, instances = (
        int(re.findall(rf"{field}: (\d+)", config)[0]) for field in ("max_batch_size", "count")
    )
    threshold = float(trigger["metadata"]["threshold"])
    assert threshold < instances * batch
    most = float(re.findall(r", (\d+)\)$", trigger["metadata"]["query"])[0])
    assert most == 2 * threshold


def test_alerts_and_panels_name_what_the_manifests_make() -> None:
    text = "\n".join(list_expressions())
    (scaled,) = list_objects("production", "ScaledObject")
    names = set(re.findall(r'horizontalpodautoscaler="([^"]+)"', text))
    assert names == {f"keda-hpa-{scaled['metadata']['name']}"}  # KEDA's name for it
    (redis,) = list_objects("production", "StatefulSet")
    assert re.findall(r'statefulset="([^"]+)"', text) == [redis["metadata"]["name"]]
    assert set(re.findall(r'le="([^"]+)"', text)) <= {str(bound) for bound in metrics.SECONDS}


def test_jobs_are_the_monitors() -> None:
    monitors = {
        f"rehue/{manifest['metadata']['name']}" for manifest in list_objects("gpu", "PodMonitor")
    }
    asked = {
        matcher.value.replace("$namespace", "rehue")
        for expression in list_expressions()
        for selector in Selectors(expression)
        for matcher in selector.matchers.matchers
        if matcher.name == "job"
    }
    assert asked == monitors


def test_every_series_is_of_one_installation() -> None:
    """A canary's photographs are not the first installation's; a job's name says it too."""
    for expression in list_expressions():
        for selector in Selectors(expression):
            given = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
            whose = given.get("namespace") or given.get("exported_namespace")
            whose = whose or given.get("job", "").partition("/")[0]
            assert whose in ("rehue", "$namespace") or str(selector.name).startswith("rehue:")


def test_the_plans_alert_names_the_containers() -> None:
    (alert,) = [rule for rule in list_rules() if rule.get("alert") == "RehuePlanNotBuilt"]
    pod = get_object("gpu", "Deployment")["spec"]["template"]["spec"]
    names = {
        f"kube_pod_{kind}container_status_waiting_reason": {each["name"] for each in pod[field]}
        for kind, field in (("init_", "initContainers"), ("", "containers"))
    }
    for selector in Selectors(alert["expr"]):
        (name,) = [
            matcher.value for matcher in selector.matchers.matchers if matcher.name == "container"
        ]
        assert name in names[str(selector.name)]


def test_the_component_traces_as_rehue_serve_does(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = tmp_path_factory.mktemp("overlay")
    shutil.copytree(K8S, overlay / "k8s")
    (overlay / "k8s" / "overlays" / "traced").mkdir()
    (overlay / "k8s" / "overlays" / "traced" / "kustomization.yaml").write_text(
        "resources: [../gpu]\ncomponents: [../../components/tracing]\n"
    )
    command = [KUBECTL, "kustomize", overlay / "k8s" / "overlays" / "traced"]
    made = subprocess.run(command, capture_output=True, text=True, check=True)  # type: ignore[arg-type]
    rendered = [manifest for manifest in yaml.safe_load_all(made.stdout) if manifest]
    given = next(
        manifest["data"]
        for manifest in rendered
        if "OTEL_TRACES_EXPORTER" in manifest.get("data", {})
    )
    for name, value in given.items():
        if name.startswith("OTEL_"):
            monkeypatch.setenv(name, value)
    (triton,) = [manifest for manifest in rendered if manifest["kind"] == "Deployment"]
    (container,) = triton["spec"]["template"]["spec"]["containers"]
    expected = tracing.build_triton_arguments(Settings())
    assert tuple(argument for argument in container["args"] if "trace" in argument) == expected
    assert len(expected) == 5
