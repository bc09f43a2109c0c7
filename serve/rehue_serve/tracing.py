"""Traces by OpenTelemetry: the caller's trace goes on through the server into Triton.

Off, every function here is one look at a name. The exporter (OTLP over HTTP), the
sampler and the resource come from the standard OTEL_* variables.
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

# Triton traces one call in so many, and besides each call that brings a traceparent. We
# send one with sampled calls alone, so no others shall be traced.
TRITON_RATE = 1_000_000_000

_tracer: Tracer | None = None


def start(settings: Settings) -> None:
    """Begins to export spans from this process, where the settings ask for it."""
    global _tracer
    if settings.traces == "none":
        return
    # Imported here: a server without traces shall not pay for the exporter.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = Resource({"service.name": "rehue"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=named)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = provider.get_tracer("rehue_serve")


def serving(
    name: str, carrier: Callable[[], Mapping[str, str]]
) -> AbstractContextManager[Span | None]:
    """The server's span of one photograph, below the caller's.

    Args:
        carrier: gives the request's headers or metadata, names in small letters.
    """
    if _tracer is None:
        return contextlib.nullcontext()
    return _tracer.start_as_current_span(
        name,
        context=propagate.extract(carrier()),
        kind=SpanKind.SERVER,
        # What went wrong is the outcome, which the request notes.
        record_exception=False,
        set_status_on_exception=False,
    )


def stage(name: str) -> AbstractContextManager[object]:
    """A span below the current one, where that is recorded."""
    if _tracer is None or not trace.get_current_span().is_recording():
        return contextlib.nullcontext()
    return _tracer.start_as_current_span(name, record_exception=False)


def carried(work: Callable[[], T]) -> Callable[[], T]:
    """The same work for another thread, below the current span."""
    if _tracer is None:
        return work
    return functools.partial(contextvars.copy_context().run, work)


def current() -> Span | None:
    """The span that is recorded here, if one is."""
    if _tracer is None:
        return None
    span = trace.get_current_span()
    return span if span.is_recording() else None


def calls(
    parents: Sequence[tuple[Span | None, int]], endpoint: str
) -> tuple[list[Span], list[tuple[str, str]]]:
    """One call to Triton: a span in the trace of each photograph that shares it.

    Triton can go on with one trace only: the first. The other spans link to that one.

    Args:
        parents: for each photograph its span and how often it was called for before.
        endpoint: the Triton's address.

    Returns:
        The spans; and the metadata that takes the first of them to Triton.
    """
    traced = [one for one in parents if one[0] is not None]
    if _tracer is None or not traced:
        return [], []
    spans: list[Span] = []
    for parent, before in traced:
        assert parent is not None
        spans.append(
            _tracer.start_span(
                "inference.GRPCInferenceService/ModelInfer",
                context=trace.set_span_in_context(parent),
                kind=SpanKind.CLIENT,
                attributes={
                    "rehue.endpoint": endpoint,
                    "rehue.attempt": before + 1,
                    "rehue.photographs": len(parents),
                },
                links=[Link(spans[0].get_span_context())] if spans else None,
            )
        )
    metadata: dict[str, str] = {}
    propagate.inject(metadata, trace.set_span_in_context(spans[0]))
    return spans, list(metadata.items())


def called(spans: Sequence[Span], outcome: str) -> None:
    """The call is over: OK, or what became of it."""
    for span in spans:
        span.set_attribute("rehue.outcome", outcome)
        if outcome != "OK":
            span.set_status(StatusCode.ERROR, outcome)
        span.end()


def triton_arguments(settings: Settings) -> tuple[str, ...]:
    """The arguments that make a Triton go on with the traces that it is given."""
    if settings.traces == "none":
        return ()
    delay = os.environ.get("OTEL_BSP_SCHEDULE_DELAY", "")  # ms; Triton itself does not look there
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
