"""Load tests on real servers: locust runs, the generator's overhead, the peers."""

import contextlib
import csv
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from paths import ROOT
from PIL import Image

from loadtest import openloop
from loadtest.peer_servers import triton_client
from loadtest.samples import create_mix, create_squares
from rehue_client import Client
from rehue_serve.embedded import EmbeddedTriton
from rehue_serve.ports import claim_free_ports
from rehue_serve.testing.scripted import Delay, ScriptedServer, serve
from rehue_serve.testing.servers import Server

LOCUST = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py")]


def run_locust(http: str, grpc_address: str, out: Path, *options: str) -> dict[str, Any]:
    """Run locust without its web page; return the report and the exit code."""
    addresses = ["--host", http, "--grpc", grpc_address, "--out", str(out)]
    result = subprocess.run(
        [*LOCUST, "--headless", "--only-summary", *addresses, *options],
        capture_output=True,
        text=True,
        timeout=200,
    )
    print(result.stdout[-5000:], result.stderr[-5000:])  # for pytest to show where a test fails
    facts = json.loads((out / "report.json").read_text())
    return {**facts, "exit": result.returncode}


def test_a_master_and_two_workers_make_one_report(server: Server, tmp_path: Path) -> None:
    (port,) = claim_free_ports(1)
    workers = [
        subprocess.Popen([*LOCUST, "--worker", f"--master-port={port}"], stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        facts = run_locust(
            server.http_url,
            server.grpc_url.removeprefix("grpc://"),
            tmp_path,
            *("--master", f"--master-bind-port={port}", "--expect-workers=2"),
            *(
                "--shape",
                "smoke",
                "--time-scale",
                "0.6",
                "--bad-share",
                "0.3",
                "--csv",
                str(tmp_path / "locust"),
            ),
        )
        ends = [worker.communicate(timeout=60) and worker.returncode for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert (facts["exit"], ends) == (0, [0, 0])
    outcomes = facts["outcomes"]
    assert outcomes["colorized"] > 0
    assert outcomes["denied"] > 0
    assert outcomes["failed"] == outcomes["refused"] == 0
    assert facts["where_ms"]["infer"] > facts["where_ms"]["decode"] > 0
    assert facts["stages"][-1]["users"] == 6
    for name in ("report.html", "report.csv", "latency.png"):
        assert (tmp_path / name).stat().st_size > 0
    with (tmp_path / "locust_stats.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["Type"] for row in rows} == {"POST", "grpc", "stream", ""}
    # The master received as many requests from the workers as locust counted.
    assert int(rows[-1]["Request Count"]) == sum(outcomes.values())


def test_users_run_in_parallel_and_wait_for_their_last_answers(tmp_path: Path) -> None:
    # Locust's own port is the same for every run on the machine.
    (port,) = claim_free_ports(1)
    users = ["GrpcUser", "StreamUser", "--shape", "free", "-u", "8", "-r", "8", "-t", "6s"]
    with serve(ScriptedServer(always=lambda image: Delay(1))) as slow:
        facts = run_locust(
            "http://unused",
            slow.grpc_url.removeprefix("grpc://"),
            tmp_path,
            *users,
            "--bad-share=.3",
            "--processes=2",
            f"--master-bind-port={port}",
            f"--master-port={port}",
        )
    # If a call blocked its whole process, each of the two would have one in flight.
    assert slow.most_at_once > 4
    photographs = {sample.data for sample in create_mix().photographs}
    good = sum(request.image in photographs for request in slow.requests)
    bad = len(slow.requests) - good
    # A bad input that is not refused is a failure, and every request is counted.
    assert bad > 0
    assert facts["outcomes"] == {"colorized": good, "denied": 0, "refused": 0, "failed": bad}
    assert facts["exit"] == 1
    assert facts["whole"]["p50_ms"] >= 1000


def test_run_from_the_web_page_fails_if_it_misses_a_service_level(
    server: Server, tmp_path: Path
) -> None:
    (port,) = claim_free_ports(1)
    page = f"http://127.0.0.1:{port}"
    locust = subprocess.Popen([*LOCUST, "HttpUser", "--shape", "free", "--web-port", str(port)])
    # As the page sends them, empty fields included.
    form = {"user_count": "1", "spawn_rate": "1", "host": server.http_url, "out": str(tmp_path)}
    form |= {
        "bad_share": "0",
        "p99_ms": "1",
        "failed": "",
        "rate": "",
        "run_time": "",
        "api_key": "",
    }
    try:
        wait_until(lambda: "locust" in httpx.get(page).text.lower())
        assert httpx.post(f"{page}/swarm", data=form, timeout=60).json()["success"]
        wait_until(
            lambda: httpx.get(f"{page}/stats/requests").json()["stats"][-1]["num_requests"] > 1
        )
        httpx.post(f"{page}/stop", timeout=60).raise_for_status()
        wait_until(lambda: (tmp_path / "report.html").exists())
    finally:
        locust.terminate()
        ended = locust.wait(60)
    facts = json.loads((tmp_path / "report.json").read_text())
    assert [level["level"] for level in facts["levels"] if not level["met"]] == ["p99_ms"]
    assert facts["where_ms"]["infer"] > facts["where_ms"]["decode"] > 0  # by Server-Timing
    assert ended == 1


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a condition that another process makes true; connection errors do not count."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if condition():
                return
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s")


@pytest.mark.parametrize("scheme", ["grpc", "http"])
async def test_missing_server_is_reported(scheme: str) -> None:
    (port,) = claim_free_ports(1)
    url = f"{scheme}://127.0.0.1:{port}"
    with pytest.raises(SystemExit, match=f"no server is ready at {url}: `make serve` starts one"):
        await openloop.compare_with_bare_model(url, "rehue", 500, 0.5)


async def test_generator_is_measured_with_an_echo_server() -> None:
    facts = await openloop.measure_overhead(0.5)
    echo = facts["echo"]
    assert set(echo) == {"grpc", "http"}
    assert all(
        result["failed"] == 0 and result["cpu_ms"] > 0 for result in [*echo["grpc"], *echo["http"]]
    )


def test_peers_produce_the_same_pictures(server: Server, triton: EmbeddedTriton) -> None:
    (photograph,) = create_squares(count=1)
    with Client(server.grpc_url) as client:
        ours = client.colorize(photograph).data
    theirs = triton_client.colorize(triton.url, photograph)
    a, b = (np.asarray(Image.open(io.BytesIO(data)), float) for data in (ours, theirs))
    assert np.abs(a - b).mean() < 2
