"""Metrics, traces and log lines of one photograph's request."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import Span, StatusCode, format_trace_id
from starlette.requests import ClientDisconnect

from rehue_serve import logs, metrics, tracing
from rehue_serve.errors import Internal, RehueError
from rehue_serve.statuses import HTTP_STATUS

if TYPE_CHECKING:
    from rehue_serve.candidates import Candidates
    from rehue_serve.pipeline import Colorized

log = logging.getLogger(__name__)

ABANDONED = "ABANDONED"  # outcome of a request whose caller cancelled it or disconnected


class RequestRecord:
    """What the handler records about its request.

    Attributes:
        bytes_in: size of the encoded photograph.
        picture: the answer, once there is one.
    """

    def __init__(self) -> None:
        self.bytes_in = 0
        self.picture: Colorized | Candidates | None = None


@contextlib.contextmanager
def observe_request(
    protocol: str, route: str, request_id: str, get_headers: Callable[[], Mapping[str, str]]
) -> Iterator[RequestRecord]:
    """Count, trace and log one photograph by the way the block ends.

    Args:
        protocol: ``http`` or ``grpc``.
        route: the span's name.
        request_id: the id that log lines and errors carry.
        get_headers: returns the request's headers or metadata, with lower-case names.

    Raises:
        Internal: in place of any exception that is neither a RehueError nor caused by
            the caller. Its cause is logged here; the caller gets a generic message.
    """
    record = RequestRecord()
    outcome = "ok"
    failed = False
    started = time.perf_counter()
    token = logs.request_id.set(request_id)
    with tracing.start_request_span(route, get_headers) as span:
        try:
            try:
                yield record
            except Exception as error:
                if isinstance(error, RehueError | ClientDisconnect):
                    raise
                raise _log_fault(error) from None
            except asyncio.CancelledError as error:
                if _is_cancelled_by_caller():
                    raise
                raise _log_fault(error) from None
        except RehueError as error:
            outcome, failed = error.outcome, HTTP_STATUS[type(error)] >= 500
            raise
        except BaseException:  # what is left is the caller's: cancelled or disconnected
            outcome, failed = ABANDONED, True
            raise
        finally:
            milliseconds = (time.perf_counter() - started) * 1000
            fields = _build_fields(protocol, outcome, record, milliseconds)
            metrics.record_answer(protocol, outcome, fields["model"])
            if span is not None:
                _annotate_span(span, fields, request_id, failed)
                fields["trace_id"] = format_trace_id(span.get_span_context().trace_id)
            level = logging.ERROR if outcome == "INTERNAL" else logging.INFO
            log.log(level, "photograph", extra={"fields": fields})
            logs.request_id.reset(token)


def _log_fault(error: BaseException) -> Internal:
    log.error("a request failed", exc_info=error)
    return Internal("The server failed on this photograph.")


def _is_cancelled_by_caller() -> bool:
    """Whether this task was cancelled, rather than something that it awaited."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _build_fields(
    protocol: str, outcome: str, record: RequestRecord, milliseconds: float
) -> dict[str, Any]:
    picture = record.picture
    fields = {
        "protocol": protocol,
        "outcome": outcome,
        "model": picture.model if picture else "",
        "ms": round(milliseconds, 2),
        "bytes_in": record.bytes_in,
    }
    if picture:
        fields["bytes_out"] = len(picture.data)
        fields |= {f"{stage}_ms": round(time, 2) for stage, time in picture.timings.items()}
    return fields


def _annotate_span(span: Span, fields: Mapping[str, Any], request_id: str, failed: bool) -> None:
    span.set_attribute("rehue.request_id", request_id)
    for name in ("outcome", "model", "bytes_in"):
        span.set_attribute(f"rehue.{name}", fields[name])
    if failed:
        span.set_status(StatusCode.ERROR, str(fields["outcome"]))
