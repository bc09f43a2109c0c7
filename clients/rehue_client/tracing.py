"""OpenTelemetry spans for the client's calls.

OpenTelemetry is optional. Without the package these functions do nothing. With
it, spans are recorded only if the calling process has configured a tracer.
"""

import contextlib
from collections.abc import Iterator, Mapping

try:
    from opentelemetry import propagate, trace
except ImportError:
    HAS_OPENTELEMETRY = False
else:
    HAS_OPENTELEMETRY = True


@contextlib.contextmanager
def start_span(
    name: str, attributes: Mapping[str, str | int] | None = None, *, is_request: bool = False
) -> Iterator[None]:
    """Record the block as a span.

    ``is_request``: the block sends a request, so the span has the kind CLIENT.
    """
    if not HAS_OPENTELEMETRY:
        yield
        return
    kind = trace.SpanKind.CLIENT if is_request else trace.SpanKind.INTERNAL
    tracer = trace.get_tracer("rehue_client")
    with tracer.start_as_current_span(name, kind=kind, attributes=attributes):
        yield


def get_trace_headers() -> dict[str, str]:
    """Return the headers that carry the current span to the server (W3C traceparent)."""
    carrier: dict[str, str] = {}
    if HAS_OPENTELEMETRY:
        propagate.inject(carrier)
    return carrier
