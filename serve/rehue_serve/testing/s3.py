"""An S3-compatible server in a process of its own, on a free port, with its objects in memory.

It is rclone's, or moto's, which keeps every key but takes about ten times the CPU.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehue_serve import processes
from rehue_serve.ports import claim_free_ports
from rehue_serve.testing.servers import START_TIMEOUT, ServerFailed

KEY, SECRET = "testing", "testing"
RCLONE = str(Path(sys.executable).with_name("rclone"))
SERVE = [RCLONE, "serve", "s3", "--config", "", "--addr", "127.0.0.1:{port}",
         "--auth-key", f"{KEY},{SECRET}", ":memory:"]  # fmt: skip
COPY = [RCLONE, "copy", "--config", "", "--transfers", "16", "--no-check-dest", "--s3-no-head"]
MOTO = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "{port}"]


@dataclass
class S3:
    """The server and what clients need to reach it."""

    port: int

    @property
    def environment(self) -> dict[str, str]:
        """The usual variables, for boto's libraries and so for s3fs."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "NO_PROXY": "127.0.0.1",
        }

    def open_files(self) -> Any:
        """A file system of fsspec on this server."""
        import s3fs

        return s3fs.S3FileSystem(
            key=KEY, secret=SECRET, endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            use_listings_cache=False, skip_instance_cache=True,
        )  # fmt: skip

    def upload(self, folder: Path, location: str) -> None:
        """Copy all files below a folder to a prefix, ``bucket/folder``, quickly."""
        self._copy(str(folder), f":s3:{location}")

    def download(self, location: str, folder: Path) -> None:
        """Copy all objects below a prefix into a folder."""
        self._copy(f":s3:{location}", str(folder))

    def _copy(self, source: str, target: str) -> None:
        variables = {"PROVIDER": "Rclone", "ENDPOINT": self.environment["AWS_ENDPOINT_URL"],
                     "ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": SECRET}  # fmt: skip
        own = {f"RCLONE_S3_{name}": value for name, value in variables.items()}
        subprocess.run([*COPY, source, target], check=True, env=os.environ | own)


@contextlib.contextmanager
def run_s3(*buckets: str, any_key: bool = False) -> Iterator[S3]:
    """Run the server with these buckets.

    Args:
        any_key: keep keys that are no path too, such as ``a//b.jpg``; then it is moto's.
    """
    (port,) = claim_free_ports(1)
    command = MOTO if any_key else SERVE
    command = [word.format(port=port) for word in command]
    process = subprocess.Popen(
        processes.bind_to_parent(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for_port(port, process)
        server = S3(port)
        for bucket in buckets:
            server.open_files().mkdir(bucket)
        yield server
    finally:
        process.kill()
        process.wait()


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise ServerFailed(f"the S3 server does not listen on port {port}")
