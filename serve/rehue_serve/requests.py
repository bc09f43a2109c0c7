"""One photograph's request, as metrics, traces and logs see it."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from opentelemetry.trace import Span, StatusCode, format_trace_id

from rehue_serve import logs, metrics, tracing
from rehue_serve.errors import HTTP_STATUS, RehueError
from rehue_serve.service import Colorized

log = logging.getLogger(__name__)


class Request:
    """What is noted of a request while it is under way."""

    def __init__(self) -> None:
        self.received = 0  # bytes of the encoded photograph
        self.picture: Colorized | None = None


@contextlib.contextmanager
def watched(
    protocol: str, route: str, request_id: str, carrier: Callable[[], Mapping[str, str]]
) -> Iterator[Request]:
    """Counts, traces and logs one photograph by how the block ends.

    Args:
        protocol: ``http`` or ``grpc``.
        route: the span's name.
        carrier: gives the request's headers or metadata, names in small letters.
    """
    request = Request()
    outcome = "ABANDONED"  # the caller went away
    failed = True
    began = time.perf_counter()
    named = logs.request_id.set(request_id)
    with tracing.serving(route, carrier) as span:
        try:
            yield request
            outcome, failed = "ok", False
        except RehueError as error:
            outcome, failed = error.code, HTTP_STATUS[type(error)] >= 500
            raise
        finally:
            model = request.picture.model if request.picture else ""
            metrics.answered(protocol, outcome, model)
            fields = {
                "protocol": protocol,
                "outcome": outcome,
                "model": model,
                "ms": round((time.perf_counter() - began) * 1000, 2),
                "bytes_in": request.received,
            }
            if request.picture:
                fields["bytes_out"] = len(request.picture.data)
                fields |= {f"{k}_ms": round(v, 2) for k, v in request.picture.timings.items()}
            if span is not None:
                _note(span, fields, request_id, failed)
                fields["trace_id"] = format_trace_id(span.get_span_context().trace_id)
            level = logging.ERROR if outcome == "INTERNAL" else logging.INFO
            log.log(level, "photograph", extra={"fields": fields})
            logs.request_id.reset(named)


def _note(span: Span, fields: Mapping[str, Any], request_id: str, failed: bool) -> None:
    span.set_attribute("rehue.request_id", request_id)
    for name in ("outcome", "model", "bytes_in"):
        span.set_attribute(f"rehue.{name}", fields[name])
    if failed:
        span.set_status(StatusCode.ERROR, str(fields["outcome"]))
