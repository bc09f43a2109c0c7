"""Ports: two servers never share one, whatever the order of their starts."""

import socket
import subprocess
import sys

import psutil
from serve_command import run_serve
from systems import System

from rehue_serve import ports
from rehue_serve.testing.servers import Server

CLAIM = (
    "from rehue_serve.ports import claim_free_ports; "
    "print(*claim_free_ports(100), flush=True); input()"
)


def test_processes_get_ports_of_their_own() -> None:
    """All claim ports at once, before any of them listens."""
    running = [
        subprocess.Popen([sys.executable, "-c", CLAIM], stdin=-1, stdout=-1, text=True)
        for _ in range(4)
    ]
    found = [
        line for process in running if process.stdout for line in process.stdout.readline().split()
    ]
    for process in running:
        process.communicate("\n", timeout=60)
    assert len(found) == len(set(found)) == 400
    assert all(11_000 <= int(port) < 30_000 for port in found)


def test_port_that_is_listened_on_is_left_out() -> None:
    first = ports.claim_free_ports(1)[0]
    with socket.create_server(("127.0.0.1", first + 1)):
        assert first + 1 not in ports.claim_free_ports(3)


def test_two_servers_on_one_machine_share_no_port(server: Server, system: System) -> None:
    """Ray's gRPC servers would listen beside others: each server has a range of its own."""
    own, other = (
        list_listening_ports(pid) for pid in (server.process.pid, system.server.process.pid)
    )
    assert {server.ports["http"], server.ports["grpc"]} < own
    assert len(own) > 5
    assert not own & other


def list_listening_ports(pid: int) -> set[int]:
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    found = [connection for process in processes for connection in process.net_connections("tcp")]
    return {item.laddr.port for item in found if item.status == psutil.CONN_LISTEN}


def test_port_of_a_server_that_starts_is_refused() -> None:
    """Nobody listens on it yet, and still the second server says so at once."""
    (port,) = ports.claim_free_ports(1)
    claimed = ports.claim_name(f"serves 127.0.0.1:{port}")
    assert claimed
    with claimed:
        result = run_serve(http_port=str(port))
    assert result.returncode == 1
    assert f"127.0.0.1:{port} cannot be used (another rehue serve" in result.stderr
    assert "Traceback" not in result.stderr
