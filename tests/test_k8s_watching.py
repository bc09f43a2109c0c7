"""Alerts, dashboard and scaling: only over metrics that exist, each alert tried and explained."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import promql_parser
import pytest
import yaml
from conftest import Server
from ray.util.metrics import Histogram, Metric
from rendered import K8S, KUBECTL, ROOT, every, only

from rehue_serve import metrics, tracing
from rehue_serve.embedded import EmbeddedTriton
from rehue_serve.errors import HTTP_STATUS
from rehue_serve.settings import Settings

# Triton's on a GPU alone (its user guide, "Metrics"); kube-state-metrics' and Prometheus' own.
GPU = {"nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes"}
OTHERS = {"up", "kube_pod_init_container_status_waiting_reason"}
OUTCOMES = {"ok", "ABANDONED", *(error.code for error in HTTP_STATUS)}


def rules() -> list[dict[str, Any]]:
    return [
        rule for group in only("gpu", "PrometheusRule")["spec"]["groups"] for rule in group["rules"]
    ]


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    dashboard = json.loads(only("gpu", "ConfigMap", "rehue-dashboard")["data"]["rehue.json"])
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for scaled in every("production", "ScaledObject"):
        yield from (trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"])


class Selectors(list[promql_parser.VectorSelector]):
    """Every series that an expression asks for."""

    def __init__(self, expression: str) -> None:
        super().__init__()
        self._walk(promql_parser.parse(expression))

    def _walk(self, node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            self.append(node)
        for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
            below = getattr(node, name, None)
            if below is not None:
                self._walk(below)
        for below in getattr(node, "args", None) or []:
            self._walk(below)


def exported() -> dict[str, set[str]]:
    """The application's metrics as Ray serves them, with their labels."""
    found = {}
    for metric in vars(metrics).values():
        if isinstance(metric, Metric):
            names = [metric.info["name"]]
            if isinstance(metric, Histogram):
                names = [f"{names[0]}_{part}" for part in ("bucket", "sum", "count")]
            found |= {f"ray_{name}": set(metric.info["tag_keys"]) for name in names}
    assert len(found) >= 5
    return found


def test_every_metric_exists(triton: EmbeddedTriton) -> None:
    text = httpx.get(f"http://127.0.0.1:{triton.metrics_port}/metrics").text
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = exported().keys() | _named(text) | GPU | OTHERS | recorded
    asked = {selector.name for one in expressions() for selector in Selectors(one)}
    assert len(asked) > 12
    assert asked <= known


def test_ray_serves_them_under_these_names(server: Server, photo: bytes) -> None:
    httpx.post(f"{server.http_url}/v1/colorize", content=photo, timeout=60)
    wanted = exported().keys()
    found: set[str] = set()
    for _ in range(60):  # Ray gathers every 10 s
        text = httpx.get(f"http://127.0.0.1:{server.ports['metrics']}/metrics").text
        found = {line.partition("{")[0] for line in text.splitlines()}
        if wanted <= found:
            return
        time.sleep(0.5)
    raise AssertionError(wanted - found)


def _named(text: str) -> set[str]:
    return {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}


def test_every_label_exists() -> None:
    for expression in expressions():
        for selector in Selectors(expression):
            labels = exported().get(selector.name)
            for matcher in selector.matchers.matchers if labels is not None else []:
                assert matcher.name in labels, expression
                if matcher.name == "outcome":
                    assert set(matcher.value.split("|")) <= OUTCOMES, expression


def test_the_applications_labels_win() -> None:
    """Prometheus renames a series' label that the operator gives to its target too."""
    targets = {"container", "endpoint", "instance", "job", "namespace", "pod"}
    if set.union(*exported().values()) & targets:
        (entry,) = only("gpu", "PodMonitor", "rehue-ray")["spec"]["podMetricsEndpoints"]
        assert entry["honorLabels"] is True


def test_jobs_are_the_monitors() -> None:
    monitors = {f"rehue/{one['metadata']['name']}" for one in every("gpu", "PodMonitor")}
    asked = {
        matcher.value
        for one in expressions()
        for selector in Selectors(one)
        for matcher in selector.matchers.matchers
        if matcher.name == "job"
    }
    assert asked == monitors


def test_the_plans_alert_names_the_init_container() -> None:
    (alert,) = [rule for rule in rules() if rule.get("alert") == "RehuePlanNotBuilt"]
    names = [
        one["name"]
        for one in only("gpu", "Deployment")["spec"]["template"]["spec"]["initContainers"]
    ]
    (asked,) = re.findall(r'container="(\w+)"', alert["expr"])
    assert asked in names


def test_every_alert_is_in_the_runbook_and_tried() -> None:
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    guide = (ROOT / "docs" / "kubernetes.md").read_text()
    assert set(re.findall(r"^### (Rehue\w+)", guide, re.MULTILINE)) == alerts
    tried = yaml.safe_load((ROOT / "tests" / "k8s_alerts.yaml").read_text())["tests"]
    cases = [case for test in tried for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == alerts


@pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed (Debian's package prometheus has it): alerts are parsed, "
    "not tried on series",
)
def test_alerts_fire_when_they_shall(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(only("gpu", "PrometheusRule")["spec"]))
    shutil.copy(ROOT / "tests" / "k8s_alerts.yaml", tmp_path)
    for command in (["check", "rules", "rules.yaml"], ["test", "rules", "k8s_alerts.yaml"]):
        done = subprocess.run(
            ["promtool", *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


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
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    rendered = [one for one in yaml.safe_load_all(made.stdout) if one]
    given = next(one["data"] for one in rendered if "OTEL_TRACES_EXPORTER" in one.get("data", {}))
    for name, value in given.items():
        if name.startswith("OTEL_"):
            monkeypatch.setenv(name, value)
    (triton,) = [one for one in rendered if one["kind"] == "Deployment"]
    (container,) = triton["spec"]["template"]["spec"]["containers"]
    expected = tracing.triton_arguments(Settings())
    assert tuple(one for one in container["args"] if "trace" in one) == expected
    assert len(expected) == 5
