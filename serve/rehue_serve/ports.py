"""Ports of this machine that no two servers of ours share, and who has those that are taken.

A port that was free a moment ago need not be free when a server listens on it: another server
that starts beside this one may have found it too, and Linux gives outgoing connections ports of
its own range (from 32768 on). Worse, Ray's gRPC servers listen beside whoever has their port
already (2.60 switches SO_REUSEPORT off with a text where gRPC wants a number), and so do its
proxies for when no replica lives: two servers answered each other's callers. So ports come from
below that range, in blocks that one process claims until it ends.
"""

import contextlib
import random
import socket

import psutil

BLOCK = 250  # ports that one process claims at once
# Beyond the ports of common servers and Ray's own 10001, below Kubernetes' and Linux' ranges.
BLOCKS = range(11_000, 30_000, BLOCK)


class _Blocks:
    """The blocks of this process."""

    def __init__(self) -> None:
        self._claims: list[socket.socket] = []
        self._left = range(0)

    def take(self, count: int) -> list[int]:
        while True:
            taken, self._left = self._left[:count], self._left[count:]
            if len(taken) < count:
                self._left = self._next()
            elif all(map(_is_free, taken)):
                return list(taken)

    def _next(self) -> range:
        for first in random.sample(BLOCKS, len(BLOCKS)):
            if one := claim(f"block {first}"):
                self._claims.append(one)
                return range(first, first + BLOCK)
        raise OSError("other servers have claimed all ports from 11000 to 30000")


_blocks = _Blocks()


def free_ports(count: int) -> list[int]:
    """Ports in a row that nobody listens on; no other server of ours takes them meanwhile."""
    if count > BLOCK:
        raise ValueError(f"{count} ports are more than a block of {BLOCK}")
    return _blocks.take(count)


def claim(name: str) -> socket.socket | None:
    """A claim on a name, held until the socket is closed; None where another process has it.

    An abstract Unix socket (Linux): as ports are, it is one network namespace's, and it is gone
    with its process, however that ends.
    """
    one = socket.socket(socket.AF_UNIX)
    try:
        one.bind(f"\0rehue {name}")
    except OSError:
        one.close()
        return None
    return one


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def taken(host: str, port: int) -> str:
    """Why nobody can listen there, in words; empty where one can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return str(error.strerror) + _named(holder(port))
    return ""


def holder(port: int) -> psutil.Process | None:
    """The process that listens on a port, where this user may see it."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            here = connection.laddr
            listens = here and here.port == port and connection.status == psutil.CONN_LISTEN
            if listens and connection.pid:
                return psutil.Process(connection.pid)
    return None


def _named(process: psutil.Process | None) -> str:
    if process is not None:
        with contextlib.suppress(psutil.Error):
            return f"; {process.name()}, pid {process.pid}, has it"
    return ""
