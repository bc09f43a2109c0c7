"""An S3-compatible server in a process of its own: moto's, on a free port."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rehue_serve.ports import claim_free_ports
from rehue_serve.testing.servers import wait_for_answer


@dataclass
class S3:
    """The server and what clients need to reach it."""

    port: int

    @property
    def environment(self) -> dict[str, str]:
        """The usual variables, for boto's libraries and so for s3fs."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "NO_PROXY": "127.0.0.1",
        }

    def open_files(self) -> Any:
        """A file system of fsspec on this server."""
        import s3fs

        return s3fs.S3FileSystem(
            key="testing", secret="testing", endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            use_listings_cache=False, skip_instance_cache=True,
        )  # fmt: skip


@contextlib.contextmanager
def run_s3(*buckets: str) -> Iterator[S3]:
    (port,) = claim_free_ports(1)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ
    )
    try:
        wait_for_answer(f"http://127.0.0.1:{port}/moto-api/", process)
        server = S3(port)
        for bucket in buckets:
            server.open_files().mkdir(bucket)
        yield server
    finally:
        process.kill()
        process.wait()
