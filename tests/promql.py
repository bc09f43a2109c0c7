"""The PromQL of alerts, dashboard and autoscaler, and the metrics that exist."""

import json
from collections.abc import Iterator
from typing import Any

import promql_parser
from ray.util.metrics import Histogram, Metric
from rendered import get_object, list_objects

from rehue_serve import metrics

# Triton's metrics on a GPU (its user guide, "Metrics"), and those of DCGM's exporter
# (its etc/default-counters.csv).
GPU_SERIES = {
    "nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes",
    "DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_ROW_REMAP_FAILURE",
}  # fmt: skip
KEY_SERIES = {"ray_rehue_key_photographs_total"}  # those of a server with named keys
KUBE_SERIES = {  # those of kube-state-metrics
    "kube_pod_container_status_waiting_reason",
    "kube_pod_init_container_status_waiting_reason", "kube_pod_container_status_restarts_total",
    "kube_horizontalpodautoscaler_status_desired_replicas",
    "kube_horizontalpodautoscaler_spec_max_replicas", "kube_statefulset_status_replicas_ready",
}  # fmt: skip


def list_rules() -> list[dict[str, Any]]:
    """Return the alerting and recording rules."""
    return [
        rule
        for group in get_object("gpu", "PrometheusRule")["spec"]["groups"]
        for rule in group["rules"]
    ]


def list_expressions() -> Iterator[str]:
    """Yield the expressions of the rules, and the queries."""
    yield from (rule["expr"] for rule in list_rules())
    yield from list_queries()


def list_queries() -> Iterator[str]:
    """Yield the queries of the dashboard and of the autoscaler's triggers."""
    dashboard = json.loads(get_object("gpu", "ConfigMap", "rehue-dashboard")["data"]["rehue.json"])
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for scaled in list_objects("production", "ScaledObject"):
        yield from (trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"])


class Selectors(list[promql_parser.VectorSelector]):
    """The vector selectors of an expression."""

    def __init__(self, expression: str) -> None:
        super().__init__()
        self._walk(promql_parser.parse(expression))

    def _walk(self, node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            self.append(node)
        for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
            child = getattr(node, name, None)
            if child is not None:
                self._walk(child)
        for child in getattr(node, "args", None) or []:
            self._walk(child)


def list_exported_metrics() -> dict[str, set[str]]:
    """Return the application's metrics as Ray exports them, with their labels."""
    found: dict[str, set[str]] = {}
    for metric in vars(metrics).values():
        if isinstance(metric, Metric):
            name, labels = f"ray_{metric.info['name']}", set(metric.info["tag_keys"])
            if isinstance(metric, Histogram):
                found |= {f"{name}_sum": labels, f"{name}_count": labels}
                found[f"{name}_bucket"] = labels | {"le"}
            else:
                found[name] = labels
    assert len(found) >= 5
    return found
