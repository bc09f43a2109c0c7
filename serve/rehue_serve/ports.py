"""Free ports that no two Rehue servers of this machine share, and who holds a port.

A port that is free now may be taken before a server listens on it: another server that starts
at the same time may have found it too, and Linux takes ports for outgoing connections from its
own range (32768 and up). Ray makes it worse. Its gRPC servers listen on a port that somebody
else already has (2.60 disables SO_REUSEPORT with a string where gRPC wants a number), and so do
its fallback proxies: two servers answered each other's callers. Therefore ports come from below
Linux' range, in blocks that one process claims until it ends.
"""

import contextlib
import random
import socket

import psutil

BLOCK = 250  # ports that one process claims at once
# Above the ports of common servers and Ray's own 10001, below Kubernetes' and Linux' ranges.
BLOCKS = range(11_000, 30_000, BLOCK)


class _PortBlocks:
    """The blocks that this process has claimed."""

    def __init__(self) -> None:
        self._claims: list[socket.socket] = []
        self._unused = range(0)

    def take(self, count: int) -> list[int]:
        while True:
            ports, self._unused = self._unused[:count], self._unused[count:]
            if len(ports) < count:
                self._unused = self._claim_block()
            elif all(map(_is_free, ports)):
                return list(ports)

    def _claim_block(self) -> range:
        for first in random.sample(BLOCKS, len(BLOCKS)):
            if claim := claim_name(f"block {first}"):
                self._claims.append(claim)
                return range(first, first + BLOCK)
        raise OSError("other Rehue servers have claimed all ports from 11000 to 30000")


_blocks = _PortBlocks()


def claim_free_ports(count: int) -> list[int]:
    """Return consecutive free ports. No other Rehue server takes them while this process lives."""
    if count > BLOCK:
        raise ValueError(f"{count} ports do not fit into a block of {BLOCK}")
    return _blocks.take(count)


def claim_name(name: str) -> socket.socket | None:
    """Claim a name until the returned socket is closed. None if another process holds it.

    The claim is an abstract Unix socket (Linux). Like a port it belongs to one network
    namespace, and it disappears with its process, however that ends.
    """
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0rehue {name}")
    except OSError:
        claim.close()
        return None
    return claim


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def describe_conflict(host: str, port: int) -> str:
    """Say why nobody can listen on this address. Empty if it is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return str(error.strerror) + _describe_listener(find_listener(port))
    return ""


def find_listener(port: int) -> psutil.Process | None:
    """Return the process that listens on a port. None if there is none that this user may see."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            address = connection.laddr
            listens = address and address.port == port and connection.status == psutil.CONN_LISTEN
            if listens and connection.pid:
                return psutil.Process(connection.pid)
    return None


def _describe_listener(process: psutil.Process | None) -> str:
    if process is not None:
        with contextlib.suppress(psutil.Error):
            return f"; held by {process.name()}, pid {process.pid}"
    return ""
