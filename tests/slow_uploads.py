"""Uploads that send a byte now and then (slowloris)."""

import contextlib
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def trickle_uploads(port: int, count: int) -> Iterator[None]:
    """Uploads that declare 100 kB and send a byte every half second."""
    sockets = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(count)]
    stop = threading.Event()

    def send() -> None:
        while not stop.wait(0.5):
            for connection in sockets:
                with contextlib.suppress(OSError):
                    connection.sendall(b"\0")

    for connection in sockets:
        connection.sendall(
            b"POST /v1/colorize HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n\xff\xd8"
        )
    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join()
        for connection in sockets:
            connection.close()
