"""Hosts of a network: Linux namespaces on a bridge, as pods on the nodes of a cluster. Needs root.

Each host has an address, process numbers and a /tmp of its own. A host is one process: all of it
ends with that, its network too. A name server knows their names, as a cluster's DNS does.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from waiting import wait_for

# Killed with the thread that starts them: unshare ignores SIGTERM.
BOUND = ("setpriv", "--pdeathsig", "KILL")
NAME_SECONDS = 5  # for which a resolver may keep an address: CoreDNS' default
START = """
set -e
resolv=$1 tmp=$2 link=$3 address=$4; shift 4
mount --bind "$resolv" /etc/resolv.conf
mount --bind "$tmp" /tmp # last: it hides the other folders
until ip link show "$link" >/dev/null 2>&1; do sleep 0.1; done
ip link set lo up
ip address add "$address/24" dev "$link"
ip link set "$link" up
# As the kubelet starts a container again that has ended.
while :; do unshare --pid --fork --kill-child --mount-proc "$@" || sleep 2; done
"""


@dataclass
class Host:
    """A host that runs a command, again whenever it ends.

    Attributes:
        folder: the command's output is its file ``log``.
        disk: its /tmp.
    """

    address: str
    folder: Path
    disk: Path
    link: str
    process: "subprocess.Popen[bytes]"

    def kill(self, *, silent: bool) -> None:
        """End all of it at once.

        Args:
            silent: its connections stay open for others, as those of a node that has lost its power
                or its network. Otherwise they end with its processes, as those of a killed pod.
        """
        if self.process.returncode is None:
            if silent:
                _run_ip("link", "delete", self.link)
            for first in psutil.Process(self.process.pid).children():
                first.kill()  # the first of its namespace, with which all others end
            self.process.wait()

    def list_processes(self, title: str) -> list[int]:
        """Return the numbers of its processes with this text in their command lines."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [process.pid] if title in " ".join(process.cmdline()) else []
        return found


@dataclass
class Network:
    """A bridge, of which this machine has the first address, with a name server.

    Attributes:
        names: of hosts, with their addresses.
    """

    folder: Path
    names: dict[str, str] = field(default_factory=dict)
    _number: int = 1  # of the last host

    def __post_init__(self) -> None:
        number = os.getpid() % 250
        self._bridge, self._prefix = f"rehue{number}", f"10.213.{number}"
        self.address = f"{self._prefix}.1"

    def __enter__(self) -> "Network":
        if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("dnsmasq")):
            pytest.skip("makes network namespaces: as root, with ip (iproute2) and dnsmasq")
        _run_ip("link", "add", self._bridge, "type", "bridge")
        self._stack = contextlib.ExitStack()
        self._stack.callback(_run_ip, "link", "delete", self._bridge)
        with self._stack.pop_all() as stack:
            _run_ip("address", "add", f"{self.address}/24", "dev", self._bridge)
            _run_ip("link", "set", self._bridge, "up")
            (self.folder / "resolv.conf").write_text(f"nameserver {self.address}\n")
            self._start_name_server()
            stack.callback(self._server.wait)
            stack.callback(self._server.terminate)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start_name_server(self) -> None:
        self._names = self.folder / "names"
        self._names.touch()
        self._server = subprocess.Popen(
            [*BOUND, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file",
             "--user=root", "--bind-interfaces", f"--listen-address={self.address}",
             "--no-resolv", "--no-hosts", f"--addn-hosts={self._names}",
             f"--local-ttl={NAME_SECONDS}"],
        )  # fmt: skip
        wait_for(lambda: _accepts(self.address, 53))

    def set_name(self, name: str, address: str) -> None:
        """Give a name an address; who has asked before may keep the old one for NAME_SECONDS."""
        self.names[name] = address
        lines = [f"{address} {name}\n" for name, address in self.names.items()]
        self._names.write_text("".join(lines))
        self._server.send_signal(signal.SIGHUP)  # it reads them again

    def start(
        self,
        name: str,
        environment: Mapping[str, str],
        *command: str,
        address: str | None = None,
    ) -> Host:
        """Start a host, whose address is ``{address}`` in the command.

        Args:
            address: a lost host's; None: a new one.
        """
        self._number += 1
        link, address = f"eth{self._number}", address or f"{self._prefix}.{self._number}"
        folder = self.folder / f"{name}-{self._number}"
        disk = folder / "tmp"
        disk.mkdir(parents=True)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*BOUND, "unshare", "--net", "--mount", "--pid", "--ipc", "--fork", "--kill-child",
                 "--mount-proc", "sh", "-c", START, "start", self.folder / "resolv.conf", disk,
                 link, address, *(word.replace("{address}", address) for word in command)],
                env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        outer = f"{self._bridge}{link}"
        host = Host(address, folder, disk, outer, process)
        self._stack.callback(host.kill, silent=False)
        own = Path("/proc/self/ns/net")
        wait_for(lambda: not own.samefile(f"/proc/{process.pid}/ns/net"))
        # A link address by the number in the address: a lost host's is still known to others.
        station = f"02:00:00:00:00:{int(address.rpartition('.')[2]):02x}"
        peer = ("peer", "name", link, "address", station, "netns", str(process.pid))
        _run_ip("link", "add", outer, "type", "veth", *peer)
        _run_ip("link", "set", outer, "master", self._bridge, "up")
        return host


def _run_ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stderr)


def _accepts(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port)).close()
    except OSError:
        return False
    return True
