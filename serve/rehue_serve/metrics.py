"""What the application counts. Ray gathers it from every replica of a node and
serves it as Prometheus text, with ``ray_`` before each name, on the metrics port.
"""

import contextlib
from collections.abc import Iterator

from ray.util.metrics import Counter, Gauge, Histogram

from rehue_serve.errors import RehueError

SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]

_requests = Counter(
    "rehue_requests_total",
    "Photographs answered, by protocol and outcome: ok, or the error's code.",
    tag_keys=("protocol", "outcome"),
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
_healthy = Gauge(
    "rehue_triton_healthy",
    "Whether a Triton is asked (1) or ejected (0).",
    tag_keys=("endpoint",),
)
_under_way = Gauge("rehue_under_way", "Photographs that a replica works on now.")


@contextlib.contextmanager
def counted(protocol: str) -> Iterator[None]:
    """Counts one photograph by how the block ends."""
    outcome = "ABANDONED"  # the caller went away
    try:
        yield
        outcome = "ok"
    except RehueError as error:
        outcome = error.code
        raise
    finally:
        _requests.inc(tags={"protocol": protocol, "outcome": outcome})


def took(timings: dict[str, float]) -> None:
    """Milliseconds of one photograph, by stage."""
    for stage, milliseconds in timings.items():
        _stages.observe(milliseconds / 1000, {"stage": stage})


def called(photographs: int) -> None:
    """One call to Triton left with so many photographs."""
    _calls.observe(photographs)


def healthy(endpoint: str, state: bool) -> None:
    """Whether a Triton is asked. Say it again and again: Ray forgets a gauge that rests."""
    _healthy.set(float(state), {"endpoint": endpoint})


def under_way(photographs: int) -> None:
    """So many photographs are in work now. Say it again and again, as above."""
    _under_way.set(photographs)
