"""Uploads that are answered before their end, and whose bytes look like requests."""

import contextlib
import socket

EARLY = (401, 413, 429, 503)  # `proxied.application` answers /early/STATUS so
SMUGGLED = b"POST /smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" * 200


def upload_http1(port: int, path: str, headers: bytes, body: bytes, *, shut: bool = False) -> bytes:
    """Sends the beginning of a body and closes; returns the status line if there is one soon.

    Args:
        shut: whether the client ends its side before it reads.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(
            b"POST %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (path.encode(), headers) + body
        )
        with contextlib.suppress(ConnectionError, TimeoutError, OSError):
            if shut:
                connection.shutdown(socket.SHUT_WR)
            return connection.recv(1 << 16).split(b"\r\n")[0]
    return b""
