"""The application's metrics.

Ray collects them from every replica of a node and serves them in Prometheus format,
with the prefix ``ray_``, on the metrics port.
"""

from ray.util.metrics import Counter, Gauge, Histogram, Metric

SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]

_requests = Counter(
    "rehue_requests_total",
    "Photographs answered, by protocol, outcome (`ok`, the error's reason, `QUOTA` or `ABANDONED`) "
    "and, where there is a picture, the model's name and version.",
    tag_keys=("protocol", "outcome", "model"),
)
_stages = Histogram(
    "rehue_stage_seconds",
    "Time of one photograph in each stage.",
    boundaries=SECONDS,
    tag_keys=("stage",),
)
_pictures = Histogram(
    "rehue_picture_seconds",
    "Time from a photograph's last byte to its encoded picture.",
    boundaries=SECONDS,
)
_batch_sizes = Histogram(
    "rehue_call_photographs",
    "Photographs that shared one call to Triton.",
    boundaries=[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0],
)
_ended_calls = Counter(
    "rehue_triton_calls_total",
    "Finished calls to Triton, by gRPC status; retries count too.",
    tag_keys=("outcome",),
)
_key_uses = Counter(
    "rehue_key_photographs_total",
    "Photographs of named API keys: `admitted`, or refused for the key's `rate` or `daily` limit.",
    tag_keys=("name", "outcome"),
)
_healthy = Gauge(
    "rehue_triton_healthy",
    "Whether a Triton endpoint is in use (1) or ejected (0).",
    tag_keys=("endpoint",),
)
_in_flight = Gauge(
    "rehue_under_way",
    "Photographs in flight in a replica; a photograph with several looks counts once for each.",
)


def record_answer(protocol: str, outcome: str, model: str) -> None:
    """Count one answered photograph.

    Args:
        protocol: ``http`` or ``grpc``.
        outcome: ``ok``, an error's reason, or ``ABANDONED``.
        model: ``name/version`` that made the picture; empty without one.
    """
    _requests.inc(tags={"protocol": protocol, "outcome": outcome, "model": model})


def record_stage_times(timings: dict[str, float]) -> None:
    """Record one photograph's time in each stage, in milliseconds."""
    for stage, milliseconds in timings.items():
        _stages.observe(milliseconds / 1000, {"stage": stage})


def record_picture(seconds: float) -> None:
    """Record the time of one picture, from the photograph's last byte."""
    _pictures.observe(seconds)


def record_call_started(batch_size: int) -> None:
    """Record the number of photographs in a call to Triton."""
    _batch_sizes.observe(batch_size)


def record_call_ended(outcome: str) -> None:
    """Count a finished call to Triton by its gRPC status."""
    _ended_calls.inc(tags={"outcome": outcome})


def record_key_use(name: str, outcome: str) -> None:
    """Count a photograph of a named API key.

    Args:
        outcome: ``admitted``, ``rate`` or ``daily``.
    """
    _key_uses.inc(tags={"name": name, "outcome": outcome})


def set_endpoint_health(endpoint: str, healthy: bool) -> None:
    """Set a Triton endpoint's health gauge.

    Call it periodically: Ray drops gauges that are not set again.
    """
    _healthy.set(float(healthy), {"endpoint": endpoint})


def set_requests_in_flight(count: int) -> None:
    """Set the gauge of photographs in flight. Call it periodically, as above."""
    _in_flight.set(count)


def format_metrics_table() -> str:
    """Format every metric as a Markdown table for docs/observability.md."""
    rows = ["| Metric | Kind | Labels | Meaning |", "| --- | --- | --- | --- |"]
    for metric in globals().values():
        if isinstance(metric, Metric):
            info = metric.info
            labels = ", ".join(f"`{name}`" for name in info["tag_keys"])
            kind = type(metric).__name__.lower()
            rows.append(f"| `ray_{info['name']}` | {kind} | {labels} | {info['description']} |")
    return "\n".join(rows)
