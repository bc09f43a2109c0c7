"""The whole system for tests of faults: its servers and their processes."""

from dataclasses import dataclass

import psutil
from proxy import Proxy

from rehue_serve.testing.servers import Server
from rehue_serve.testing.tritons import SleepingTriton


@dataclass
class System:
    """Two replicas on two Tritons whose networks sleep, the second behind a proxy.

    Attributes:
        environment: variables for commands that join its Ray.
    """

    server: Server
    tritons: list[SleepingTriton]
    proxy: Proxy
    environment: dict[str, str]

    @property
    def urls(self) -> list[str]:
        return [self.server.grpc_url, self.server.http_url]

    def list_processes(self, title: str = "") -> list[psutil.Process]:
        """Its running processes with this text in their command lines."""
        pids = [self.server.process.pid, *(triton.pid for triton in self.tritons)]
        found = [psutil.Process(pid) for pid in pids]
        found += [child for process in found for child in process.children(recursive=True)]
        return [process for process in found if _is_running(process, title)]

    def list_replicas(self) -> set[int]:
        """The pids of Ray Serve's replicas."""
        return {process.pid for process in self.list_processes("ray::ServeReplica")}


def _is_running(process: psutil.Process, title: str) -> bool:
    try:
        alive = process.status() != psutil.STATUS_ZOMBIE
        return alive and title in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
