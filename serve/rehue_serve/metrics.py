"""What the application counts. Ray gathers it from every replica of a node and
serves it as Prometheus text, with ``ray_`` before each name, on the metrics port.
"""

from ray.util.metrics import Counter, Gauge, Histogram, Metric

SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]

_requests = Counter(
    "rehue_requests_total",
    "Photographs answered, by protocol, outcome (ok, the error's code, or ABANDONED) and, where "
    "there is a picture, the model's name and version.",
    tag_keys=("protocol", "outcome", "model"),
)
_stages = Histogram(
    "rehue_stage_seconds",
    "Time of one photograph in each stage.",
    boundaries=SECONDS,
    tag_keys=("stage",),
)
_calls = Histogram(
    "rehue_call_photographs",
    "Photographs that shared one call to Triton.",
    boundaries=[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0],
)
_ended = Counter(
    "rehue_triton_calls_total",
    "Calls to Triton that are over, by gRPC's status; a photograph's further tries count too.",
    tag_keys=("outcome",),
)
_healthy = Gauge(
    "rehue_triton_healthy",
    "Whether a Triton is asked (1) or ejected (0).",
    tag_keys=("endpoint",),
)
_under_way = Gauge("rehue_under_way", "Photographs that a replica works on now.")


def answered(protocol: str, outcome: str, model: str) -> None:
    """One photograph: ``ok`` with the ``name/version`` that coloured it, or why not."""
    _requests.inc(tags={"protocol": protocol, "outcome": outcome, "model": model})


def took(timings: dict[str, float]) -> None:
    """Milliseconds of one photograph, by stage."""
    for stage, milliseconds in timings.items():
        _stages.observe(milliseconds / 1000, {"stage": stage})


def called(photographs: int) -> None:
    """One call to Triton left with so many photographs."""
    _calls.observe(photographs)


def ended(outcome: str) -> None:
    """One call to Triton is over, with this status of gRPC's."""
    _ended.inc(tags={"outcome": outcome})


def healthy(endpoint: str, state: bool) -> None:
    """Whether a Triton is asked. Say it again and again: Ray forgets a gauge that rests."""
    _healthy.set(float(state), {"endpoint": endpoint})


def under_way(photographs: int) -> None:
    """So many photographs are in work now. Say it again and again, as above."""
    _under_way.set(photographs)


def table() -> str:
    """Every metric as a Markdown table, for the guide."""
    rows = ["| Metric | Kind | Labels | Meaning |", "| --- | --- | --- | --- |"]
    for metric in globals().values():
        if isinstance(metric, Metric):
            info = metric.info
            labels = ", ".join(f"`{name}`" for name in info["tag_keys"])
            kind = type(metric).__name__.lower()
            rows.append(f"| `ray_{info['name']}` | {kind} | {labels} | {info['description']} |")
    return "\n".join(rows)
