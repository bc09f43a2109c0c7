"""What the loss of Redis does to Ray's head: its real process for the cluster's state, and Redis.

The runbook and the alert RehueRedisMissing rest on it.
"""

import base64
import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.exceptions import RaySystemError, RpcError

from rehue_serve.ports import claim_free_ports

SERVER = Path(ray.__file__).parent / "core" / "src" / "ray" / "gcs" / "gcs_server"


@contextlib.contextmanager
def run_redis(port: int, folder: Path) -> Iterator[None]:
    redis = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--appendonly", "yes",
         "--appendfsync", "always",  # by default a kill may lose the last two seconds
         "--dir", folder],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        redis.kill()
        redis.wait()


@contextlib.contextmanager
def run_state_server(port: int, redis: int, log: Path) -> "Iterator[subprocess.Popen[bytes]]":
    environment = {"RAY_external_storage_namespace": "test", "RAY_AUTH_MODE": "disabled"}
    with log.open("a") as out:
        server = subprocess.Popen(
            [SERVER, f"--gcs_server_port={port}", "--redis_address=127.0.0.1",
             f"--redis_port={redis}", f"--config_list={base64.b64encode(b'{}').decode()}",
             "--session-name=test", "--node-ip-address=127.0.0.1", f"--session-dir={log.parent}"],
            env=os.environ | environment, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield server
    finally:
        server.kill()
        server.wait()


def connect(port: int, server: "subprocess.Popen[bytes]", log: Path) -> GcsClient:
    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        with contextlib.suppress(RpcError, RaySystemError):
            return GcsClient(address=f"127.0.0.1:{port}")
        time.sleep(0.5)


def test_the_head_ends_with_redis_and_the_next_one_has_its_state(tmp_path: Path) -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server")
    port, redis = claim_free_ports(2)
    log = tmp_path / "log"
    with run_state_server(port, redis, log) as server, run_redis(redis, tmp_path):
        client = connect(port, server, log)
        assert client.internal_kv_put(b"key", b"value", True, None, timeout=30)
    with run_state_server(port, redis, log) as server:
        with run_redis(redis, tmp_path):
            client = connect(port, server, log)
            assert client.internal_kv_get(b"key", None, timeout=30) == b"value"
        began = time.monotonic()
        assert server.wait(60) != 0  # ray start --block, and with it the head's container, ends
        print(f"\nRedis lost, ended after {time.monotonic() - began:.1f} s")
    assert re.search(r"Failed to run redis cmds: .* for 5 times", log.read_text()), log.read_text()
