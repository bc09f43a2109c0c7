"""Spans in the caller's own traces, where the caller's process has OpenTelemetry.

The client does not depend on it: without the package nothing happens here, and
without a tracer that the caller has set up, nothing but a look at that.
"""

import contextlib
from collections.abc import Iterator, Mapping

try:
    from opentelemetry import propagate, trace
except ImportError:
    HERE = False
else:
    HERE = True


@contextlib.contextmanager
def span(
    name: str, attributes: Mapping[str, str | int] | None = None, *, sends: bool = False
) -> Iterator[None]:
    """A span around the block; ``sends``: it is the client's half of a request."""
    if not HERE:
        yield
        return
    kind = trace.SpanKind.CLIENT if sends else trace.SpanKind.INTERNAL
    tracer = trace.get_tracer("rehue_client")
    with tracer.start_as_current_span(name, kind=kind, attributes=attributes):
        yield


def headers() -> dict[str, str]:
    """What takes the current span to the server: traceparent, as W3C has it."""
    carrier: dict[str, str] = {}
    if HERE:
        propagate.inject(carrier)
    return carrier
