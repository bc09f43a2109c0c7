"""``rehue serve`` at a terminal: output, errors, stop and leftovers."""

import os
import shlex
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
from PIL import Image
from ray_node import call_ray
from serve_command import run_serve

from rehue_serve.embedded import EmbeddedTriton
from rehue_serve.testing.servers import Server, start_server


def test_line_to_try_works_as_printed(server: Server, tmp_path: Path) -> None:
    line = next(line for line in server.read_log().splitlines() if "curl" in line)
    words = shlex.split(line.removeprefix("Try:"))
    words[words.index("-o") + 1] = str(tmp_path / "colour.jpg")
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    subprocess.run(words, check=True, timeout=60)
    assert Image.open(tmp_path / "colour.jpg").size == (451, 300)


def test_nobody_else_gives_its_ray_work(server: Server) -> None:
    """Anyone who reaches Ray's port could otherwise run code here."""
    processes = psutil.Process(server.process.pid).children(recursive=True)
    (raylet,) = (process for process in processes if process.name() == "raylet")
    (address,) = (
        word.removeprefix("--gcs-address=")
        for word in raylet.cmdline()
        if word.startswith("--gcs-address=")
    )

    def nodes(token: str) -> bytes:
        return call_ray(address, "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo", b"", token)

    with pytest.raises(grpc.RpcError) as caught:
        nodes("a" * 64)
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert nodes(raylet.environ()["RAY_AUTH_TOKEN"])


def test_ray_runs_only_what_is_used(server: Server) -> None:
    """Its monitors and the server of the dashboard would take 170 MiB."""
    processes = psutil.Process(server.process.pid).children(recursive=True)
    lines = [" ".join(process.cmdline()) for process in processes]
    assert any("raylet" in line for line in lines)
    for name in ("monitor.py", "log_monitor.py", "dashboard/dashboard.py"):
        assert not [line for line in lines if name in line]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stop_leaves_nothing(
    tmp_path: Path, triton: EmbeddedTriton, photo: bytes, number: int
) -> None:
    """With a Triton of its own, and with one that runs already and is left alone."""
    own = number != signal.SIGINT
    server = start_server(tmp_path / "log", triton_urls="" if own else triton.url)
    try:
        server.wait_until_ready()
        started = psutil.Process(server.process.pid).children(recursive=True)
        names = {process.name() for process in started}
        assert {"raylet", "haproxy"} <= names
        assert ("tritonserver" in names) == own
        with httpx.Client(base_url=server.http_url) as http:
            assert http.post("/v1/colorize", content=photo).status_code == 200
        os.killpg(server.process.pid, number)  # as a terminal or `timeout` does
        killed = number == signal.SIGKILL
        assert server.process.wait(60) == (-number if killed else 0)
        _, alive = psutil.wait_procs(started, timeout=30 if killed else 0.1)
        assert not alive
        for port in server.ports.values():
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", port)) != 0
        text = server.read_log()
        assert "curl -fsS" in text
        assert "Traceback" not in text
        assert "WARNING" not in text
        assert triton.alive
    finally:
        if server.process.poll() is None:
            server.stop()


def test_supervisor_ends_what_a_killed_server_leaves(
    tmp_path: Path, triton: EmbeddedTriton
) -> None:
    server = start_server(tmp_path / "log", triton_urls=triton.url)
    try:
        server.wait_until_ready()
        (behind,) = psutil.Process(server.process.pid).children()
        started = [behind, *behind.children(recursive=True)]
        behind.kill()
        assert server.process.wait(60) == 128 + signal.SIGKILL
        _, alive = psutil.wait_procs(started, timeout=0.1)
        assert not alive
    finally:
        server.stop()


def test_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = run_serve(http_port=port)
    assert result.returncode == 1
    assert f"127.0.0.1:{port} cannot be used" in result.stderr
    assert "REHUE_HTTP_PORT=" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("HTTP_PORT", "70000", "65535"),
        ("TRITON_URLS", "triton", "host:port"),
        ("API_KEYS_FILE", "/nowhere", "not a file"),
    ],
)
def test_wrong_setting_stops_the_start(name: str, value: str, words: str) -> None:
    result = run_serve(**{name.lower(): value})
    assert result.returncode == 1
    assert f"REHUE_{name}={value}" in result.stderr
    assert words in result.stderr


def test_models_that_do_not_load_are_explained(tmp_path: Path) -> None:
    from rehue_serve.ports import claim_free_ports

    ports = dict(
        zip(("http_port", "grpc_port", "metrics_port"), map(str, claim_free_ports(3)), strict=True)
    )
    (tmp_path / "rehue" / "1").mkdir(parents=True)
    result = run_serve(model_repository=str(tmp_path), **ports)
    assert result.returncode == 1
    assert "Triton did not start" in result.stderr
    assert "rehue" in result.stderr
