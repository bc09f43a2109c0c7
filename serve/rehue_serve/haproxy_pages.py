"""HAProxy's own responses, as ``application/problem+json``.

They have the words of `rehue_serve.errors`. That module is not imported here: it would take
HAProxy's start a second.
"""

import json
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = 1  # seconds, where a retry can succeed


@dataclass(frozen=True)
class ErrorPage:
    """A response of HAProxy's own."""

    status: int
    kind: str  # the problem's type, or its last part
    title: str
    detail: str


_UNAVAILABLE = ErrorPage(
    503, "unavailable", "The service is unavailable", "The server is starting or restarting."
)
# By HAProxy's own status. A replica that ends during a request (502) and no replica (503) are the
# same to a client: retry. What is no HTTP at all, or has headers that take too long, still gets a
# page that is compiled into HAProxy (`h1_send_error` in its src/mux_h1.c).
ERROR_PAGES = {
    400: ErrorPage(400, "about:blank", "Bad Request", "The request is not valid HTTP."),
    408: ErrorPage(408, "about:blank", "Request Timeout", "The request took too long."),
    414: ErrorPage(414, "about:blank", "URI Too Long", "The target has more than 16,384 bytes."),
    429: ErrorPage(429, "overloaded", "The server is busy", "Too many requests are in progress."),
    431: ErrorPage(
        431,
        "about:blank",
        "Request Header Fields Too Large",
        "The headers have more than 16,384 bytes.",
    ),
    500: ErrorPage(500, "internal", "The server failed", "The proxy or a replica failed."),
    502: _UNAVAILABLE,
    503: _UNAVAILABLE,
    504: ErrorPage(
        504, "deadline-exceeded", "The request timed out", "The server did not answer in time."
    ),
}
BY_ERROR_FILE = (400, 408, 429, 500, 502, 503, 504)  # HAProxy knows no such files for the others


def write_error_pages(directory: Path) -> dict[int, Path]:
    """Write the responses into the directory; return their files by HAProxy's status.

    Those of `BY_ERROR_FILE` are whole responses, the others bodies alone.
    """
    return {status: _write_page(directory, status, page) for status, page in ERROR_PAGES.items()}


def _write_page(directory: Path, status: int, page: ErrorPage) -> Path:
    path = directory / f"problem-{status}.http"
    body = json.dumps(
        {
            "type": page.kind if ":" in page.kind else f"urn:rehue:problem:{page.kind}",
            "title": page.title,
            "status": page.status,
            "detail": page.detail,
            "request_id": "",  # the request did not reach the application
        }
    )
    if status not in BY_ERROR_FILE:
        path.write_text(body)
        return path
    can_retry = page.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
    lines = [
        f"HTTP/1.1 {page.status} {HTTPStatus(page.status).phrase}",
        f"Content-Type: {MEDIA_TYPE}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        *([f"Retry-After: {RETRY_AFTER}"] if can_retry else []),
    ]
    path.write_bytes("\r\n".join([*lines, "", body]).encode())
    return path
