"""A server that stops under load: pictures in flight are finished, new requests refused."""

import contextlib
import io
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from load import NO_RETRIES, Load
from PIL import Image

from rehue_client import Client, Unavailable
from rehue_serve.testing.servers import Server, start_server
from rehue_serve.testing.tritons import SleepingTriton

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def test_stop_finishes_what_is_under_way(
    sleepers: list[SleepingTriton], small: bytes, tmp_path: Path
) -> None:
    """Requests in flight get their pictures, new ones are refused at once; exit code 0."""
    server = start_server(tmp_path / "log", triton_urls=sleepers[0].url)
    urls = [server.grpc_url, server.http_url]
    try:
        server.wait_until_ready()
        sleepers[0].set_batch_seconds(1)
        with read_slowly(server) as rest, Load(urls, small, rate=10) as load:
            time.sleep(1.5)
            server.process.send_signal(signal.SIGTERM)
            told = time.monotonic()
            load.wait_for(lambda outcome: outcome.name == "Unavailable")
            answers = count_answers_while_stopping(server, small)
            time.sleep(2)  # the others have their pictures by now
            rest()
            assert server.process.wait(60) == 0
    finally:
        sleepers[0].set_batch_seconds()
        if server.process.poll() is None:
            server.stop()
    first = min(found_outcome.due for found_outcome in load.outcomes if found_outcome.error)
    late = [found_outcome for found_outcome in load.outcomes if found_outcome.due >= first]
    print(
        f"\nstop: {load.counts}, refused {first - told:.2f} s after the signal, within "
        f"{max(found_outcome.seconds for found_outcome in late):.2f} s"
    )
    assert load.counts.keys() == {"ok", "Unavailable"}
    assert all(found_outcome.error for found_outcome in late)
    # At once, and none waits for those in flight (4 s) or for the end of the grace (20 s); the
    # load has the same cores.
    seconds = [found_outcome.seconds for found_outcome in late]
    assert statistics.median(seconds) < 1
    assert max(seconds) < 4
    assert answers == {"readyz": 503, "photograph": 503, "health": NOT_SERVING}
    assert "Traceback" not in server.read_log()


@contextlib.contextmanager
def read_slowly(server: Server) -> Iterator[Callable[[], None]]:
    """A picture larger than all buffers on its way, of which some bytes are read; and the rest."""
    noise, out = np.random.default_rng(0).integers(0, 256, (3000, 3000), np.uint8), io.BytesIO()
    Image.fromarray(noise).save(out, "PNG", compress_level=1)
    url = f"{server.http_url}/v1/colorize"
    with httpx.stream("POST", url, content=out.getvalue(), timeout=60) as answer:
        pieces = answer.iter_bytes()
        first = len(next(pieces))

        def rest() -> None:
            length = first + sum(len(piece) for piece in pieces)
            assert length == int(answer.headers["content-length"]) > 10 * 2**20

        yield rest


def count_answers_while_stopping(server: Server, photo: bytes) -> dict[str, int]:
    """What is answered while a server finishes what is under way."""
    readyz = httpx.get(f"{server.http_url}/readyz")
    refused = httpx.post(f"{server.http_url}/v1/colorize", content=photo)
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["type"] == "urn:rehue:problem:unavailable"
    with (
        Client(server.grpc_url, retries=NO_RETRIES) as client,
        pytest.raises(Unavailable) as caught,
    ):
        client.colorize(photo)
    assert caught.value.retry_after
    with grpc.insecure_channel(server.grpc_url.removeprefix("grpc://")) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    return {
        "readyz": readyz.status_code,
        "photograph": refused.status_code,
        "health": health.status,
    }
