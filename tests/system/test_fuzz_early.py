"""Uploads that are answered before they have ended, by the thousand and in every form.

No byte of theirs reaches another request, nobody waits for them, and HAProxy is idle afterwards.
Seeds are fixed, so a failure is found again by its number.
"""

import random
import time
from collections import Counter
from collections.abc import Callable

import httpx
import psutil
import pytest
from early_answers import EARLY, SMUGGLED, upload_http1
from http2 import upload_http2
from proxied import Proxied, measure_use

from rehue_serve.testing.servers import Server

pytestmark = pytest.mark.timeout(1200)  # four thousand of them take five minutes on a busy machine

ENDLESS = b"Content-Length: 2000000000\r\n"
SHORT = b"Content-Length: 5\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
# For a server that took these for "chunked", the body would end where it begins.
ODD_CODINGS = [
    b"Transfer-Encoding: xchunked\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"X: y\r\n Transfer-Encoding: chunked\r\n",
    b"Transfer_Encoding: chunked\r\n",
]


@pytest.fixture(scope="module")
def count(long: bool) -> int:
    return 4000 if long else 200


def build_chunk(data: bytes, chance: random.Random) -> bytes:
    """Return a chunk of a body, its size spelled in one of the ways that are allowed or not."""
    size = chance.choice((b"%x", b"%X", b"000%x", b"%x;a=b", b"%x ", b"0x%x", b"+%x"))
    return size % len(data) + b"\r\n" + data + chance.choice((b"\r\n", b""))


def build_http1_upload(chance: random.Random) -> tuple[bytes, bytes]:
    """Return the headers that frame a body, and its beginning."""
    data = SMUGGLED[: chance.randrange(1, len(SMUGGLED))]
    match chance.randrange(5):
        case 0:
            return ENDLESS, data
        case 1:
            return CHUNKED, build_chunk(data, chance)
        case 2:  # chunks count, and for a server that counts the length they are requests
            lengths = [CHUNKED, chance.choice((ENDLESS, SHORT))]
            chance.shuffle(lengths)
            return b"".join(lengths), build_chunk(data, chance)
        case 3:
            return ENDLESS + SHORT, data
        case _:
            return ENDLESS + chance.choice(ODD_CODINGS), b"0\r\n\r\n" + data


def upload(port: int, path: str, chance: random.Random) -> str:
    """Send one upload, and return its protocol and status."""
    if chance.random() < 0.5:
        headers, body = build_http1_upload(chance)
        line = upload_http1(port, path, headers, body, shut=chance.random() < 0.2)
        return f"HTTP/1.1 {line[9:12].decode()}"
    body = SMUGGLED[: chance.randrange(len(SMUGGLED))]
    ending = chance.choice(("end", "reset", "close"))
    more = chance.choice(({}, {}, {"content-length": "5"}, {"transfer-encoding": "chunked"}))
    return f"HTTP/2 {upload_http2(port, path, body, ending, **more)}"


def upload_many(
    port: int, paths: list[str], count: int, check: Callable[[int], None]
) -> Counter[str]:
    """Send uploads, and another client's request after each; return how many ended how."""
    seen: Counter[str] = Counter()
    for number in range(count):
        chance = random.Random(number)
        seen[upload(port, chance.choice(paths), chance)] += 1
        check(number)
    print(f"\nearly answers: {dict(sorted(seen.items()))}")
    return seen


def check_idle(haproxy: psutil.Process) -> None:
    time.sleep(1)
    assert measure_use(haproxy, 3.0) < 0.05
    states = Counter(connection.status for connection in haproxy.net_connections())
    assert not states[psutil.CONN_CLOSE_WAIT], states


def test_early_answers_harm_nobody(proxied: Proxied, count: int) -> None:
    """Each of the statuses, over both protocols."""

    def check(number: int) -> None:
        assert proxied.post(b"%d" % number) == b"/other %d" % number, number

    paths = [f"/early/{status}" for status in EARLY]
    seen = upload_many(proxied.port, paths, count, check)
    assert all(seen[f"{kind} {status}"] for kind in ("HTTP/1.1", "HTTP/2") for status in EARLY)
    assert "/smuggled" not in proxied.read_paths()
    check_idle(proxied.process)


def test_early_answers_of_the_system_harm_nobody(server: Server, photo: bytes, count: int) -> None:
    """Too large, no such path, wrong method, wrong parameter: all before the body is read."""
    paths = ["/v1/colorize", "/v1/candidates", "/nothing", "/v1/models", "/v1/colorize?quality=x"]

    def check(number: int) -> None:
        assert httpx.get(f"{server.http_url}/healthz", timeout=10).text == "ok", number
        if number % 50 == 0:
            answer = httpx.post(f"{server.http_url}/v1/colorize", content=photo, timeout=60)
            assert answer.status_code == 200, number

    seen = upload_many(server.ports["http"], paths, count, check)
    refused = {"HTTP/1.1 413", "HTTP/1.1 404", "HTTP/1.1 405", "HTTP/1.1 422"}
    assert refused <= set(seen)
    # Some have no status within a second: their sender hung up, or their body goes on.
    assert not [kind for kind in seen if kind.partition(" ")[2].startswith("5")]
    found = psutil.Process(server.pid).children(recursive=True)
    haproxies = [child for child in found if child.name() == "haproxy"]
    # After a reload the process before may still end its connections.
    check_idle(max(haproxies, key=psutil.Process.create_time))
