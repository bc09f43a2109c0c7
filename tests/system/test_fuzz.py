"""Broken photographs by the thousand: each decodes or is refused, nothing else.

Seeds are fixed, so a failure is found again by its number.
"""

import contextlib
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import hypothesis
import psutil
import pytest
import schemathesis
from mutations import create_samples, mutate
from paths import PHOTOS
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance

from rehue_client.v1 import rehue_pb2
from rehue_serve import images
from rehue_serve.errors import RehueError
from rehue_serve.parameters import CandidatesParameters, ColorizeParameters
from rehue_serve.testing.servers import Server

COUNT = 10_000
LIMITS = {"max_bytes": 1_000_000, "max_pixels": 1_000_000}


def test_mutated_photographs_decode_or_are_refused() -> None:
    originals = create_samples()
    refused = 0
    for number in range(COUNT):
        chance = random.Random(number)
        data = mutate(chance.choice(originals), chance)
        try:
            lightness = images.decode_lightness(images.open_image(data, **LIMITS))
        except RehueError:
            refused += 1
            continue
        except Exception as error:
            raise AssertionError(f"photograph {number}: {error!r}") from error
        assert lightness.ndim == 2
    assert COUNT / 10 < refused < COUNT


# The rest goes through the running system: every answer is a clear refusal (or a picture,
# where a mutation spared what matters), never a fault of the server's.

REGRESSIONS = sorted((Path(__file__).parents[1] / "regressions").iterdir())
REFUSED = {400, 401, 404, 405, 411, 413, 414, 415, 422, 431, 501}
CLEAR = {"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"}
ODD = ["", "nan", "inf", "-0", "1e309", "-1", "0x10", "٣", "\0", "a" * 5000, "%", "[]", "{}", "😀"]
NAMES = sorted(ColorizeParameters.model_fields | CandidatesParameters.model_fields)
HINTS = b'[{"x": 0.4, "y": 0.6, "color": "#7a1f2b"}, {"x": 1, "y": 0, "color": "gray"}]'


@pytest.fixture(scope="module")
def count(long: bool) -> int:
    return 10_000 if long else 300


def wait_for_one_haproxy(server: psutil.Process) -> list[psutil.Process]:
    """Wait until the HAProxy from before a reload has ended; return the server's processes."""
    deadline = time.monotonic() + 90  # it may finish its connections for a minute
    while True:
        found = server.children(recursive=True)
        if sum(process.name() == "haproxy" for process in found) == 1:
            return found
        assert time.monotonic() < deadline, "HAProxy was reloaded and its last process goes on"
        time.sleep(0.2)


@pytest.fixture
def unharmed(server: Server) -> Iterator[None]:
    """Check after a test that the same processes run, no larger, and colorize photographs."""
    photo = (PHOTOS / "skimage_coffee.jpg").read_bytes()
    httpx.post(f"{server.http_url}/v1/colorize", content=photo, timeout=60)
    before = wait_for_one_haproxy(psutil.Process(server.process.pid))
    memory = {process: process.memory_info().rss for process in before}
    yield
    assert all(process.is_running() for process in before)
    assert httpx.post(f"{server.http_url}/v1/colorize", content=photo, timeout=60).is_success
    grown = {entry: (entry.memory_info().rss - rss) / 2**20 for entry, rss in memory.items()}
    most = max(grown, key=lambda value: grown[value])
    print(f"grown: {sum(grown.values()):+.1f} MiB in all, {most.name()} {grown[most]:+.1f}")
    assert grown[most] < 64  # of 10,000 inputs, 6 KiB each


def build_form(image: bytes) -> tuple[bytes, str]:
    """Return a multipart body with this photograph and edits of it, and its content type."""
    files = {"image": ("a.jpg", image, "image/jpeg"), "reference": ("b.jpg", image, "image/jpeg")}
    data = {"hints": HINTS.decode(), "warmth": "0.2"}
    request = httpx.Request("POST", "http://x", files=files, data=data)
    return request.read(), request.headers["content-type"]


@pytest.mark.usefixtures("unharmed")
def test_mutated_bodies_are_refused_over_http(server: Server, count: int) -> None:
    """Photographs, forms and parameters, each mutated."""
    originals = create_samples()
    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=server.http_url, timeout=60) as http:
        for number in range(count):
            chance = random.Random(number)
            body, kind = chance.choice(originals), "image/jpeg"
            query: dict[str, str] = {}
            match number % 3:
                case 0:
                    body = mutate(body, chance)
                case 1:
                    body, kind = build_form(body)
                    body = mutate(body, chance)
                    if chance.random() < 0.3:
                        kind = mutate(kind.encode(), chance).decode("latin-1")
                        kind = "".join(c for c in kind if c.isprintable() and c.isascii()).strip()
                case _:
                    query = {chance.choice(NAMES): chance.choice(ODD) for _ in range(3)}
                    if chance.random() < 0.3:
                        query = {"hints": mutate(HINTS, chance).decode("latin-1")}
            path = chance.choice(("/v1/colorize", "/v1/colorize", "/v1/candidates"))
            answer = http.post(path, content=body, headers={"Content-Type": kind}, params=query)
            statuses[answer.status_code] += 1
            assert answer.status_code in REFUSED | {200}, (number, answer.status_code, answer.text)
            if answer.status_code != 200 and number % 3 != 2:
                assert answer.json()["detail"], number
    print(f"\nHTTP: {dict(statuses)}")
    assert statuses[200] < 0.7 * count


@pytest.mark.usefixtures("unharmed")
def test_mutated_messages_are_refused_over_grpc(server: Server, count: int) -> None:
    """Photographs inside good messages, and messages that are themselves mutated."""
    originals = create_samples()
    codes: Counter[str] = Counter()
    unclear: list[tuple[int, grpc.RpcError]] = []
    address = server.grpc_url.removeprefix("grpc://")
    with grpc.insecure_channel(address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/rehue.v1.Colorizer/Colorize"
        )
        for number in range(count):
            chance = random.Random(number)
            message = rehue_pb2.ColorizeRequest(
                image=mutate(chance.choice(originals), chance),
                strength=chance.choice([1.0, float("nan"), float("inf"), -1.0]),
                quality=chance.choice([90, 0, -1, 2**31 - 1]),
                model=chance.choice(["", "", "nobody"]),
                edits=chance.choice(
                    [None, rehue_pb2.Edits(warmth=chance.choice([0.5, float("nan"), 9])),
                     rehue_pb2.Edits(reference=mutate(chance.choice(originals), chance)),
                     rehue_pb2.Edits(hints=[rehue_pb2.Hint(x=chance.random(), color="gray")])]
                ),
            ).SerializeToString()  # fmt: skip
            if number % 2:
                message = mutate(message, chance)
            try:
                call(message, timeout=60)
                codes["OK"] += 1
            except grpc.RpcError as error:
                codes[error.code().name] += 1
                if error.code().name not in CLEAR:
                    unclear.append((number, error))
    assert not unclear
    print(f"\ngRPC: {dict(codes)}")
    assert codes["OK"] < 0.5 * count


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"


def build_frame(chance: random.Random) -> bytes:
    """Return an HTTP/2 frame whose header and payload may contradict each other."""
    payload = chance.randbytes(chance.choice((0, 4, 8, 40, 300)))
    length = chance.choice((len(payload), 0, 2**24 - 1))
    kind, flags = chance.choice((*range(11), 255)), chance.randrange(256)
    stream = chance.choice((0, 1, 2, 3, 2**31 - 1))
    return length.to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


@pytest.mark.usefixtures("unharmed")
def test_garbage_on_the_ports_is_survived(server: Server, count: int) -> None:
    """Raw bytes on both ports: HTTP requests cut and mangled, HTTP/2 frames that make no sense."""
    body = build_form(create_samples()[0])[0]
    head = b"POST /v1/colorize HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    statuses: Counter[bytes] = Counter()
    for number in range(count):
        chance = random.Random(number)
        if number % 2:
            port = server.ports["grpc"]
            sent = (
                PREFACE
                + SETTINGS
                + b"".join(build_frame(chance) for _ in range(chance.randrange(9)))
            )
        else:
            port = server.ports["http"]
            sent = mutate(head, chance) + body
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.settimeout(0.02)
            with contextlib.suppress(OSError):
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(64)
                if answer.startswith(b"HTTP/1"):
                    statuses[answer[9:12]] += 1
    print(f"\nraw: {dict(statuses)}")
    assert not [status for status in statuses if status.startswith(b"5") and status != b"501"]


@schemathesis.serializer("image/*")  # type: ignore[arg-type]
def _serialize(context: schemathesis.SerializationContext, value: object) -> object:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_server_keeps_to_its_description(server: Server, mode: GenerationMode, long: bool) -> None:
    """What the OpenAPI allows and what it forbids: statuses, types and bodies as it says."""
    schema = schemathesis.openapi.from_url(f"{server.http_url}/openapi.json")
    if mode is GenerationMode.NEGATIVE:
        # The other paths have no parameters.
        paths = ["/v1/colorize", "/v1/candidates"]
        schema = schema.include(path=paths)  # type: ignore[assignment]
    for found in schema.get_all_operations():

        @hypothesis.settings(
            max_examples=500 if long else 25,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=found.ok().as_strategy(generation_mode=mode))  # type: ignore[union-attr]
        def check_case(case: schemathesis.Case) -> None:  # type: ignore[type-arg]
            # A description cannot say which bytes are a photograph, so refusals are allowed.
            response = case.call(timeout=60)
            excluded: list[Any] = [positive_data_acceptance, not_a_server_error]
            case.validate_response(response, excluded_checks=excluded)
            # 504: a short X-Request-Timeout is valid.
            assert response.status_code < 500 or response.status_code == 504

        check_case()


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.name)
def test_regressions(server: Server, path: Path) -> None:
    """Messages that once were answered wrongly; the file's suffix is the right answer."""
    with grpc.insecure_channel(server.grpc_url.removeprefix("grpc://")) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/rehue.v1.Colorizer/Colorize"
        )
        with pytest.raises(grpc.RpcError) as caught:
            call(path.read_bytes(), timeout=60)
    assert caught.value.code().name == path.suffix.removeprefix(".")
