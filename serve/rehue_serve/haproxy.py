"""HAProxy, which Ray Serve starts on every node: the state of its connections."""

import contextlib
import csv
import socket
from pathlib import Path

BACKENDS = ("http-rehue", "grpc-rehue")  # as Ray names them in HAProxy's statistics


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
