"""The alerts and every expression tried by promtool: on made-up series, and on recorded ones."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import promql_parser
import pytest
import yaml
from paths import PHOTOS
from prometheus_client.parser import text_string_to_metric_families
from promql import (
    GPU_SERIES,
    KEY_SERIES,
    KUBE_SERIES,
    Selectors,
    list_exported_metrics,
    list_expressions,
    list_queries,
    list_rules,
)
from rendered import ROOT, get_object

from rehue_serve.embedded import EmbeddedTriton
from rehue_serve.testing.servers import Server

MADE_UP = Path(__file__).with_name("k8s_alerts.yaml")
PLACES = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="session")
def promtool() -> str:
    found = shutil.which("promtool", path=PLACES)
    if found is None:
        asked = "promtool is missing: `make test` fetches Debian's; elsewhere put one on the PATH"
        assert "CI" not in os.environ, asked
        pytest.skip(asked)
    return found


def run_promtool_checks(promtool: str, folder: Path, tests: str) -> None:
    (folder / "rules.yaml").write_text(yaml.safe_dump(get_object("gpu", "PrometheusRule")["spec"]))
    (folder / "tests.yaml").write_text(tests)
    for command in (["check", "rules", "rules.yaml"], ["test", "rules", "tests.yaml"]):
        done = subprocess.run(
            [promtool, *command], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_in_the_runbook_and_tried() -> None:
    alerts = {rule["alert"] for rule in list_rules() if "alert" in rule}
    guide = (ROOT / "docs" / "kubernetes.md").read_text()
    assert set(re.findall(r"^### (Rehue\w+)", guide, re.MULTILINE)) == alerts
    cases = [case for test in create_series() for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == alerts


def create_series() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(MADE_UP.read_text())["tests"]
    return found


def test_alerts_fire_when_they_should(promtool: str, tmp_path: Path) -> None:
    run_promtool_checks(promtool, tmp_path, MADE_UP.read_text())


@dataclass(frozen=True)
class Sample:
    """One line of a scrape, with the labels that Prometheus adds."""

    name: str
    labels: dict[str, str]
    value: float

    def series(self) -> dict[str, str]:
        """The series for promtool: a counter grows by its value each minute, a gauge stays."""
        names = ",".join(f"{name}={json.dumps(value)}" for name, value in self.labels.items())
        counter = not self.name.startswith(GAUGES)
        start = f"0+{self.value}" if counter else f"{self.value}"
        return {"series": f"{self.name}{{{names}}}", "values": f"{start}x120"}


GAUGES = (
    "up", "ray_rehue_triton_healthy", "ray_rehue_under_way", "ray_serve_deployment_replica",
    "ray_serve_autoscaling", "ray_node", "nv_inference_pending",
)  # fmt: skip
# What Prometheus' operator gives to every series of a target.
TARGET = {"namespace": "rehue", "container": "c", "endpoint": "metrics", "pod": "pod-1"}


def parse_scrape(text: str, job: str, *, honor: bool) -> Iterator[Sample]:
    """Yield a scrape's samples with the labels of a PodMonitor; ``honor``: the samples' own win."""
    added = TARGET | {"job": f"rehue/{job}", "instance": "10.0.0.2:8002"}
    yield Sample("up", added, 1)
    names = list_metrics() | list_exported_metrics().keys()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            # The parser calls every counter _total, as OpenMetrics does; Prometheus does not.
            name = sample.name if sample.name in names else sample.name.removesuffix("_total")
            if name in names:
                labels = added | sample.labels if honor else sample.labels | added
                yield Sample(name, labels, sample.value)


@pytest.fixture(scope="module")
def recorded(server: Server, triton: EmbeddedTriton) -> list[Sample]:
    """Scrapes of a server that colorized a photograph, and of a Triton."""
    photo = (PHOTOS / "skimage_astronaut.jpg").read_bytes()
    url = f"{server.http_url}/v1/colorize"
    assert httpx.post(url, content=photo, timeout=60).status_code == 200
    wanted = [
        s for query in list_queries() for s in Selectors(query) if str(s.name).startswith("ray_")
    ]
    wanted += [s for name in list_exported_metrics() for s in Selectors(name)]
    wanted = [selector for selector in wanted if selector.name not in KEY_SERIES]
    found: list[Sample] = []
    deadline = time.monotonic() + 60  # Ray exports every 10 s
    while missing := [
        selector
        for selector in wanted
        if not any(map(functools.partial(is_selected, selector), found))
    ]:
        assert time.monotonic() < deadline, missing
        time.sleep(0.5)
        text = httpx.get(f"http://127.0.0.1:{server.ports['metrics']}/metrics").text
        found = list(parse_scrape(text, "rehue-ray", honor=True))
    text = httpx.get(f"http://127.0.0.1:{triton.metrics_port}/metrics").text
    found += parse_scrape(text, "rehue-triton", honor=False)
    # Without other tests' refusals, and with the address that Triton has in a cluster.
    return [
        change_series("ray_rehue_triton_healthy", 1, endpoint="10.0.0.2:8001")(manifest)
        for manifest in found if manifest.labels.get("outcome", "ok") == "ok"
    ]  # fmt: skip


def is_selected(selector: promql_parser.VectorSelector, manifest: Sample) -> bool:
    """Return whether a selector selects a sample, in any namespace."""
    return manifest.name == selector.name and all(
        manifest.labels.get(matcher.name) == matcher.value
        for matcher in selector.matchers.matchers
        if matcher.name != "namespace"
    )


def list_metrics() -> set[str]:
    """Return the metrics in all expressions."""
    return {
        str(selector.name)
        for expression in list_expressions()
        for selector in Selectors(expression)
    }


def test_every_metric_exists(recorded: list[Sample]) -> None:
    named = {rule["record"] for rule in list_rules() if "record" in rule}
    assert len(list_metrics()) > 16
    assert list_metrics() - GPU_SERIES - KUBE_SERIES - KEY_SERIES - {"up"} - named <= {
        sample.name for sample in recorded
    }


def test_made_up_series_are_like_recorded_ones(recorded: list[Sample]) -> None:
    held: dict[str, set[str]] = {}
    for sample in recorded:
        held.setdefault(sample.name, set()).update(sample.labels)
    given = [series["series"] for test in create_series() for series in test["input_series"]]
    seen = set()
    for (selector,) in map(Selectors, given):
        if selector.name in held:
            names = {matcher.name for matcher in selector.matchers.matchers}
            assert names <= held[selector.name], selector
            seen.add(selector.name)
    assert len(seen) > 6


def expect_value(expression: str, value: float) -> dict[str, Any]:
    """Return promtool's test that an expression has a value after 90 minutes."""
    return {
        "expr": expression,
        "eval_time": "90m",
        "exp_samples": [{"labels": "{}", "value": value}],
    }


def list_panel_checks() -> Iterator[dict[str, Any]]:
    """Yield a check for each panel and trigger that a machine without a GPU has data for."""
    for query in list_queries():
        if not {selector.name for selector in Selectors(query)} & (
            GPU_SERIES | KUBE_SERIES | KEY_SERIES
        ):
            yield expect_value(f"count({query.replace('$namespace', 'rehue')}) > bool 0", 1)


# Each: photographs waiting or computed, Tritons scraped and not, and how many the HPA then wants:
# ready x value / threshold, rounded up, and as many as before within its tolerance of a tenth.
SCALING = [
    (10, 2, 0, 1),
    (92, 2, 0, 2),
    (130, 2, 0, 3),
    (130, 4, 0, 3),
    (130, 2, 2, 3),  # two that start have not served yet
    (900, 2, 0, 4),  # refused and queued: twice as many at a time
    (900, 16, 0, 19),
]


def test_tritons_scale_by_the_photographs_that_each_has(promtool: str, tmp_path: Path) -> None:
    (trigger,) = get_object("production", "ScaledObject")["spec"]["triggers"]
    tests = []
    for photographs, ready, starting, wanted in SCALING:
        given = [
            f'ray_rehue_stage_seconds_sum{{namespace="rehue",stage="infer",pod="{n}"}}'
            for n in "ab"
        ]
        series = [{"series": name, "values": f"0+{photographs * 60 / 2}x60"} for name in given]
        for number in range(ready + starting):
            name = f'up{{job="rehue/rehue-triton",pod="{number}"}}'
            series.append({"series": name, "values": f"{int(number < ready)}x60"})
        usage = f"({trigger['metadata']['query']}) / {trigger['metadata']['threshold']}"
        off = f"abs({usage} - 1)"
        replicas = f"ceil({ready} * ({usage} * ({off} > bool 0.1) + ({off} <= bool 0.1)))"
        tests.append(
            {
                "interval": "1m",
                "input_series": series,
                "promql_expr_test": [expect_value(replicas, wanted) | {"eval_time": "30m"}],
            }
        )
    whole = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    run_promtool_checks(promtool, tmp_path, yaml.safe_dump(whole))


FIRING = 'count(ALERTS{{alertname="{}",alertstate="firing"}}) > bool 0'
Fault = Callable[[Sample], Sample]


def change_series(name: str, value: float, **labels: str) -> Fault:
    """Return a fault: the series of this name get another value or other labels."""
    return lambda manifest: (
        replace(manifest, value=value, labels=manifest.labels | labels)
        if manifest.name == name
        else manifest
    )


FAULTS: dict[str, Fault] = {
    "RehueBudgetBurnsFast": change_series(
        "ray_rehue_requests_total", 1, outcome="UNAVAILABLE", model=""
    ),
    "RehueBudgetBurnsSlowly": change_series(
        "ray_rehue_requests_total", 1, outcome="INTERNAL", model=""
    ),
    "RehueNoTriton": change_series("ray_rehue_triton_healthy", 0),
    "RehueTritonEjected": change_series("ray_rehue_triton_healthy", 0),
    "RehueLatencyBurnsFast": change_series("ray_rehue_picture_seconds_bucket", 0),
    "RehueLatencyBurnsSlowly": change_series("ray_rehue_picture_seconds_bucket", 0),
    "RehueTritonsFull": change_series("ray_rehue_stage_seconds_sum", 1e4),
    "RehueTritonFails": change_series("nv_inference_request_failure", 1),
    "RehueMetricsMissing": change_series("up", 0),
    "RehueColorizersMissing": change_series("ray_serve_deployment_replica_healthy", 0),
}


def test_recorded_series_fill_every_panel_and_fire_what_a_fault_would(
    promtool: str, tmp_path: Path, recorded: list[Sample]
) -> None:
    # A server and a Triton that other tests loaded may have had a queue; no pod here is a head.
    calm = (
        'count(ALERTS{alertname!~"RehueTritonsFull|RehueHeadMissing|RehueLatency.+"}) or vector(0)'
    )
    tests = [create_case("healthy", recorded, [*list_panel_checks(), expect_value(calm, 0)])]
    assert len(tests[0]["promql_expr_test"]) > 15
    for alert, fault in FAULTS.items():
        broken = list(map(fault, recorded))
        tests.append(create_case(alert, broken, [expect_value(FIRING.format(alert), 1)]))
    whole = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    run_promtool_checks(promtool, tmp_path, yaml.safe_dump(whole))


def create_case(name: str, given: list[Sample], asked: list[dict[str, Any]]) -> dict[str, Any]:
    series = {
        found_series["series"]: found_series for found_series in map(Sample.series, given)
    }  # each once
    return {
        "name": name, "interval": "1m", "input_series": list(series.values()),
        "promql_expr_test": asked,
    }  # fmt: skip
