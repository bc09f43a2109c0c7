"""OpenTelemetry traces: the caller's trace continues through the server into Triton.

When tracing is off, each function returns after one check. The exporter (OTLP over
HTTP), the sampler and the resource are configured by the standard OTEL_* variables.
"""

import contextlib
import contextvars
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from opentelemetry import propagate, trace
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer

from rehue_serve.settings import Settings

T = TypeVar("T")

# Triton traces one call in this many, and every call that carries a traceparent. Sampled
# calls carry one, so no other call needs to be traced.
TRITON_RATE = 1_000_000_000

_tracer: Tracer | None = None


def configure_tracing(settings: Settings) -> None:
    """Start exporting spans from this process, if the settings ask for it."""
    global _tracer
    if settings.traces == "none":
        return
    # Imported here, so that a server without traces does not load the exporter.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = Resource({"service.name": "rehue"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=named)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = provider.get_tracer("rehue_serve")


def start_request_span(
    name: str, get_headers: Callable[[], Mapping[str, str]]
) -> AbstractContextManager[Span | None]:
    """Start the server's span of one photograph, as a child of the caller's span.

    Args:
        name: the span's name.
        get_headers: returns the request's headers or metadata, with lower-case names.
    """
    if _tracer is None:
        return contextlib.nullcontext()
    return _tracer.start_as_current_span(
        name,
        context=propagate.extract(get_headers()),
        kind=SpanKind.SERVER,
        # Failures are recorded as the request's outcome.
        record_exception=False,
        set_status_on_exception=False,
    )


def start_stage_span(name: str) -> AbstractContextManager[object]:
    """Start a child of the current span, if that one is recorded."""
    if _tracer is None or not trace.get_current_span().is_recording():
        return contextlib.nullcontext()
    return _tracer.start_as_current_span(name, record_exception=False)


def bind_current_span(work: Callable[[], T]) -> Callable[[], T]:
    """Bind work that runs in another thread to the current span."""
    if _tracer is None:
        return work
    return functools.partial(contextvars.copy_context().run, work)


def get_current_span() -> Span | None:
    """Return the current span, if it is recorded."""
    if _tracer is None:
        return None
    span = trace.get_current_span()
    return span if span.is_recording() else None


def start_call_spans(
    parents: Sequence[tuple[Span | None, int]], endpoint: str
) -> tuple[list[Span], list[tuple[str, str]]]:
    """Start a span for one call to Triton in the trace of each photograph of the batch.

    Triton continues only one trace: the first. The other spans link to that one.

    Args:
        parents: for each photograph, its span and the number of earlier attempts.
        endpoint: the Triton's address.

    Returns:
        The spans, and the metadata that propagates the first of them to Triton.
    """
    traced = [parent for parent in parents if parent[0] is not None]
    if _tracer is None or not traced:
        return [], []
    spans: list[Span] = []
    for parent, attempts in traced:
        assert parent is not None
        spans.append(
            _tracer.start_span(
                "inference.GRPCInferenceService/ModelInfer",
                context=trace.set_span_in_context(parent),
                kind=SpanKind.CLIENT,
                attributes={
                    "rehue.endpoint": endpoint,
                    "rehue.attempt": attempts + 1,
                    "rehue.photographs": len(parents),
                },
                links=[Link(spans[0].get_span_context())] if spans else None,
            )
        )
    metadata: dict[str, str] = {}
    propagate.inject(metadata, trace.set_span_in_context(spans[0]))
    return spans, list(metadata.items())


def end_call_spans(spans: Sequence[Span], outcome: str) -> None:
    """End a call's spans with its gRPC status, or CANCELLED."""
    for span in spans:
        span.set_attribute("rehue.outcome", outcome)
        if outcome != "OK":
            span.set_status(StatusCode.ERROR, outcome)
        span.end()


def build_triton_arguments(settings: Settings) -> tuple[str, ...]:
    """Build the Triton arguments that make it continue the traces of its callers."""
    if settings.traces == "none":
        return ()
    delay = os.environ.get("OTEL_BSP_SCHEDULE_DELAY", "")  # ms; Triton does not read it
    return (
        "--trace-config=mode=opentelemetry",
        "--trace-config=level=TIMESTAMPS",
        f"--trace-config=rate={TRITON_RATE}",
        f"--trace-config=opentelemetry,url={settings.traces_url}",
        "--trace-config=opentelemetry,resource=service.name=rehue-triton",
        *(
            [f"--trace-config=opentelemetry,bsp_schedule_delay={delay}"]
            if delay.isdecimal()
            else []
        ),
    )
