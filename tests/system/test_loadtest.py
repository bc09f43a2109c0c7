"""Load tests: what they send, what they count, and whole runs on a real server."""

import asyncio
import contextlib
import csv
import io
import itertools
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import triton_client
from paths import ROOT
from PIL import Image

import capacity
import openloop
import report
from ledger import Ledger, Outcome, Tally, rounded
from rehue_client import Client
from rehue_client.v1 import rehue_pb2, rehue_pb2_grpc
from rehue_serve.embedded import EmbeddedTriton
from rehue_serve.ports import claim_free_ports
from rehue_serve.testing.servers import Server
from samples import mixed, squares

LOCUST = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py")]


def load(http: str, grpc_address: str, out: Path, *options: str) -> dict[str, Any]:
    """The report of a run without the web page, with its exit code and what it printed."""
    where = ["--host", http, "--grpc", grpc_address, "--out", str(out)]
    ran = subprocess.run(
        [*LOCUST, "--headless", "--only-summary", *where, *options],
        capture_output=True,
        text=True,
        timeout=200,
    )
    print(ran.stdout[-5000:], ran.stderr[-5000:])  # for pytest to show where a test fails
    facts = json.loads((out / "report.json").read_text())
    return {**facts, "exit": ran.returncode}


def test_a_master_and_two_workers_make_one_report(server: Server, tmp_path: Path) -> None:
    (port,) = claim_free_ports(1)
    workers = [
        subprocess.Popen([*LOCUST, "--worker", f"--master-port={port}"], stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        facts = load(
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
    # What the workers sent to the master is all that locust counted.
    assert int(rows[-1]["Request Count"]) == sum(outcomes.values())


class Slow(rehue_pb2_grpc.ColorizerServicer):
    """Answers with what it was given after a second, bad inputs too, and counts."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.photographs = {one.data for one in mixed().photographs}
        self.under_way = self.most = self.good = self.bad = 0

    def Colorize(self, request: rehue_pb2.ColorizeRequest, _: object) -> rehue_pb2.ColorizeResponse:
        with self.lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        time.sleep(1)
        with self.lock:
            self.under_way -= 1
            good = request.image in self.photographs
            self.good, self.bad = self.good + good, self.bad + (not good)
        return rehue_pb2.ColorizeResponse(
            id=request.id, image=request.image, media_type="image/jpeg"
        )

    def ColorizeStream(
        self, requests: Iterator[rehue_pb2.ColorizeRequest], context: object
    ) -> Iterator[rehue_pb2.ColorizeResponse]:
        return (self.Colorize(request, context) for request in requests)


def test_users_wait_side_by_side_and_for_their_last_answers(tmp_path: Path) -> None:
    slow, pool = Slow(), ThreadPoolExecutor(32)
    server = grpc.server(pool)
    rehue_pb2_grpc.add_ColorizerServicer_to_server(slow, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    users = ["GrpcUser", "StreamUser", "--shape", "free", "-u", "8", "-r", "8", "-t", "3s"]
    try:
        facts = load(
            "http://unused",
            f"127.0.0.1:{port}",
            tmp_path,
            *users,
            "--bad-share=.3",
            "--processes=2",
        )
    finally:
        server.stop(0)
    # A call that blocked its process would leave one for each of the two.
    assert slow.most > 4
    # A bad input that is not refused is a failure, and nothing sent is left out.
    assert slow.bad > 0
    assert facts["outcomes"] == {
        "colorized": slow.good, "denied": 0, "refused": 0, "failed": slow.bad,
    }  # fmt: skip
    assert facts["exit"] == 1
    assert facts["whole"]["p50_ms"] >= 1000


def test_a_run_from_the_web_page_that_misses_a_level_fails(server: Server, tmp_path: Path) -> None:
    (port,) = claim_free_ports(1)
    page = f"http://127.0.0.1:{port}"
    locust = subprocess.Popen([*LOCUST, "HttpUser", "--shape", "free", "--web-port", str(port)])
    # As the page sends them: what was left empty too.
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
        until(lambda: "locust" in httpx.get(page).text.lower())
        assert httpx.post(f"{page}/swarm", data=form, timeout=60).json()["success"]
        until(lambda: httpx.get(f"{page}/stats/requests").json()["stats"][-1]["num_requests"] > 1)
        httpx.post(f"{page}/stop", timeout=60).raise_for_status()
        until(lambda: (tmp_path / "report.html").exists())
    finally:
        locust.terminate()
        ended = locust.wait(60)
    facts = json.loads((tmp_path / "report.json").read_text())
    assert [one["level"] for one in facts["levels"] if not one["met"]] == ["p99_ms"]
    assert facts["where_ms"]["infer"] > facts["where_ms"]["decode"] > 0  # by Server-Timing
    assert ended == 1


def until(met: Callable[[], bool], seconds: float = 60) -> None:
    """Waits for what a process of its own brings about."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if met():
                return
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s")


def test_what_workers_send_adds_up() -> None:
    here, there = Ledger(), Ledger()
    for milliseconds in (10, 20, 1234):
        here.add(Outcome.COLORIZED, milliseconds, {"decode": 2.0, "infer": 5.0})
    here.add(Outcome.FAILED, 5, {})
    there.add(Outcome.DENIED, 1, {})
    there.merge(json.loads(json.dumps(here.drain())))
    whole = there.between(0, math.inf)
    assert whole.outcomes == {"colorized": 3, "failed": 1, "denied": 1}
    assert (whole.percentile(50), whole.percentile(99)) == (20, 1230)
    assert whole.share(Outcome.FAILED) == pytest.approx(0.2)
    means = whole.means()
    assert means["decode"] == 2
    assert means["elsewhere"] == pytest.approx((10 + 20 + 1234) / 3 - 7)
    assert not here.drain()


def test_milliseconds_keep_three_digits() -> None:
    assert [rounded(value) for value in (0.2, 99.6, 1234, 98765)] == [1, 100, 1230, 98800]


def test_a_stage_counts_from_when_its_users_have_started() -> None:
    assert report.windows([(10, 4, 2), (10, 8, 2)], 100.0, 120.0) == [
        (4, 104.0, 110.0),
        (8, 114.0, 120.0),
    ]
    assert report.windows([(10, 4, 2), (10, 8, 2)], 100.0, 106.0) == [(4, 104.0, 106.0)]


def test_levels_that_are_missed_are_named() -> None:
    tally = Tally()
    for _ in range(9):
        tally.add(Outcome.COLORIZED, 100, {})
    tally.add(Outcome.REFUSED, 1, {})
    points = [report.Point(4, 3.0, tally)]
    assert not missed(points, tally, p99_ms=100, refused=0.1, rate=3, drift=1)
    found = missed(points, tally, p99_ms=99, refused=0.05, rate=4, failed=0, drift=0.9)
    assert found == ["p99_ms", "refused", "rate", "drift"]
    assert missed([], Tally(), failed=0) == ["answered"]
    assert missed([], Tally(), p99_ms=1) == ["answered", "p99_ms"]


def test_a_report_of_a_run_without_an_answer(tmp_path: Path) -> None:
    nothing = Tally()
    points = [report.Point(1, 5.0, nothing)]
    assert not report.write(
        tmp_path, title="", points=points, whole=nothing, levels={"p99_ms": 1}, locust=None
    )
    facts = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert facts["stages"][0]["p99_ms"] is None
    assert "missed" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "latency.png").stat().st_size > 0


def missed(points: list[report.Point], whole: Tally, **levels: float) -> list[str]:
    return [one["level"] for one in report.judged(points, whole, levels) if not one["met"]]


def test_arrivals_are_a_poisson_process() -> None:
    due = openloop.arrivals(100, 60, seed=1)
    gaps = np.diff(due)
    assert len(due) == pytest.approx(6000, rel=0.05)
    # The exponential distribution's deviation is its mean.
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)


async def test_a_stall_counts_against_all_that_was_due_in_it() -> None:
    began = time.perf_counter()
    stall = 1.0  # seconds

    async def work(_: bytes) -> None:
        await asyncio.sleep(began + stall - time.perf_counter())

    cell = await openloop.arrive(work, [b""], 50, 2.0)
    # Two seconds of arrivals, one of them stalled for up to a second: half wait, and a
    # generator that waited for answers would have sent one photograph in that time.
    assert cell.sent > 50
    assert cell.p90 > 300
    assert cell.p99 > 700


async def test_quick_refusals_do_not_flatter_the_latency() -> None:
    refuse = itertools.cycle([True, False])

    async def work(_: bytes) -> None:
        if next(refuse):
            raise OSError
        await asyncio.sleep(0.3)

    cell = await openloop.arrive(work, [b""], 100, 0.5)
    assert cell.failed == pytest.approx(0.5, abs=0.02)
    assert cell.errors == {"OSError": round(cell.failed * cell.sent)}
    assert cell.p50 >= 300
    assert not cell.within(10_000)


async def test_the_search_ends_below_what_the_server_carries() -> None:
    one_at_a_time = asyncio.Lock()

    async def work(_: bytes) -> None:
        async with one_at_a_time:
            await asyncio.sleep(0.01)

    rate, cells = await openloop.highest(work, [b""], 200, 0.5, start=10)
    assert 10 <= rate < 100 * 1.5  # 100/s at most, and a little more for so short a time
    assert cells == sorted(cells, key=lambda cell: cell.offered)
    assert not cells[-1].within(200)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
async def test_no_server_is_said_and_nothing_measured(scheme: str) -> None:
    (port,) = claim_free_ports(1)
    url = f"{scheme}://127.0.0.1:{port}"
    with pytest.raises(SystemExit, match=f"no server is ready at {url}: `make serve` starts one"):
        await openloop.search(url, "rehue", 500, 0.5)


async def test_the_generator_is_measured_against_an_echo() -> None:
    facts = await openloop.overhead(0.5)
    echo = facts["echo"]
    assert set(echo) == {"grpc", "http"}
    assert all(
        cell["failed"] == 0 and cell["cpu_ms"] > 0 for cell in [*echo["grpc"], *echo["http"]]
    )


def test_peers_make_the_same_pictures(server: Server, triton: EmbeddedTriton) -> None:
    (photograph,) = squares(count=1)
    with Client(server.grpc_url) as client:
        ours = client.colorize(photograph).data
    theirs = triton_client.colorize(triton.url, photograph)
    a, b = (np.asarray(Image.open(io.BytesIO(data)), float) for data in (ours, theirs))
    assert np.abs(a - b).mean() < 2


def test_the_worksheet_follows_from_what_was_measured() -> None:
    base = capacity.Measured(rate=100, cpu=0.01, memory=2**30, sent=20_000, received=30_000)
    row = capacity.worksheet(base, (0.1, 2.0))[1]
    assert row["gpu_per_second"] == 1000
    # 800/s at 10 ms are 8 cores, planned as 10; with the GPU 3.00 an hour for 2.88 million.
    assert row["chain_cores"] == pytest.approx(10)
    assert (row["workers"], row["memory_gib"]) == (3, 3)
    assert row["clients_mb_per_second"] == pytest.approx(40)
    assert row["cost_per_million"] == pytest.approx(3 / 2.88)
