"""The running system over HTTP and gRPC: what it answers, and what it refuses."""

import concurrent.futures
import io
import re
import time
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from bad_images import BAD_IMAGES, encode_image
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from numpy.typing import NDArray
from paths import PHOTOS
from PIL import Image
from skimage import color

from rehue_client.v1 import rehue_pb2, rehue_pb2_grpc
from rehue_serve.errors import RehueError, get_reason_name
from rehue_serve.statuses import GRPC_STATUS, HTTP_STATUS
from rehue_serve.testing.servers import Server

STAGES = ["decode", "prepare", "infer", "color", "encode"]


@pytest.fixture(scope="module")
def http(server: Server) -> httpx.Client:
    return httpx.Client(base_url=server.http_url, timeout=60)


@pytest.fixture(scope="module")
def channel(server: Server) -> grpc.Channel:
    return grpc.insecure_channel(
        server.grpc_url.removeprefix("grpc://"),
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
    )


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> rehue_pb2_grpc.ColorizerStub:
    return rehue_pb2_grpc.ColorizerStub(channel)  # type: ignore[no-untyped-call]


def open_image(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def compute_lightness(picture: Image.Image) -> NDArray[Any]:
    return color.rgb2lab(np.asarray(picture.convert("RGB")))[..., 0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "name", ["skimage_astronaut", "lomiri_Wine_by_Jakkub_Mede", "sklearn_china"]
)
def test_picture_keeps_size_and_lightness(http: httpx.Client, name: str) -> None:
    """And has colours: of a gray photograph, at its full resolution."""
    gray = Image.open(PHOTOS / f"{name}.jpg").convert("L")
    answer = http.post("/v1/colorize", content=encode_image(gray, "PNG"))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    picture = open_image(answer.content)
    assert picture.size == gray.size
    lab = color.rgb2lab(np.asarray(picture))
    # Within sRGB the lightness is the photograph's own; colours outside of it are clipped.
    assert np.percentile(np.abs(lab[..., 0] - compute_lightness(gray)), 95) < 1
    assert np.hypot(lab[..., 1], lab[..., 2]).mean() > 2


def test_answer_says_what_was_done(http: httpx.Client, photo: bytes) -> None:
    answer = http.post("/v1/colorize", content=photo, headers={"X-Request-Id": "mine-7"})
    assert answer.headers["x-rehue-model"] == "rehue/1"
    assert answer.headers.get_list("x-request-id") == ["mine-7"]
    timings = [part.split(";dur=") for part in answer.headers["server-timing"].split(", ")]
    assert [name for name, _ in timings] == STAGES
    assert all(float(value) >= 0 for _, value in timings)


def test_parameters_are_obeyed(http: httpx.Client, photo: bytes) -> None:
    def pixels(**query: object) -> NDArray[Any]:
        answer = http.post("/v1/colorize", content=photo, params={"format": "png", **query})  # type: ignore[dict-item]
        assert answer.status_code == 200, answer.text
        return np.asarray(open_image(answer.content)).astype(int)

    gray = pixels(strength=0)
    assert np.ptp(gray, axis=-1).max() <= 1
    assert np.ptp(pixels(strength=2), axis=-1).mean() > np.ptp(pixels(), axis=-1).mean()
    assert not np.array_equal(pixels(), pixels(model="seed"))


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "tiff"])
def test_formats_out(http: httpx.Client, photo: bytes, format: str) -> None:
    answer = http.post("/v1/colorize", content=photo, params={"format": format})
    assert answer.headers["content-type"] == f"image/{format}"
    assert open_image(answer.content).format == format.upper()


def test_orientation_is_applied(http: httpx.Client) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    data = encode_image(Image.open(PHOTOS / "sklearn_china.jpg"), "JPEG", exif=tags)
    assert open_image(http.post("/v1/colorize", content=data).content).size == (427, 640)


def test_multipart(http: httpx.Client, photo: bytes) -> None:
    answer = http.post("/v1/colorize", files={"image": ("a.jpg", photo, "image/jpeg")})
    assert open_image(answer.content).size == (512, 512)
    empty = http.post("/v1/colorize", files={"other": ("a.jpg", photo, "image/jpeg")})
    assert empty.status_code == 400
    assert "'image'" in empty.json()["detail"]


@pytest.mark.parametrize(
    ("data", "kind", "words"), [b[1:] for b in BAD_IMAGES], ids=[b[0] for b in BAD_IMAGES]
)
def test_bad_input_does_not_affect_others(
    http: httpx.Client,
    stub: rehue_pb2_grpc.ColorizerStub,
    photo: bytes,
    data: bytes,
    kind: type[RehueError],
    words: str,
) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        good = pool.submit(http.post, "/v1/colorize", content=photo)
        bad = http.post("/v1/colorize", content=data)
        assert good.result().status_code == 200
    problem = bad.json()
    assert bad.headers["content-type"] == "application/problem+json"
    assert bad.status_code == problem["status"] == HTTP_STATUS[kind]
    assert problem["type"] == f"urn:rehue:problem:{get_reason_name(kind).lower().replace('_', '-')}"
    assert words in problem["detail"]
    assert problem["request_id"] == bad.headers["x-request-id"]
    with pytest.raises(grpc.RpcError) as caught:
        stub.Colorize(rehue_pb2.ColorizeRequest(image=data))
    assert caught.value.code() == GRPC_STATUS[kind]
    assert get_reason(caught.value) == get_reason_name(kind)


def get_reason(error: grpc.RpcError) -> str:
    """The ErrorInfo's reason in an error's details."""
    metadata = {item.key: item.value for item in error.trailing_metadata()}
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return info.reason  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"strength": "2.1"}, 422),
        ({"strength": "nan"}, 422),
        ({"strength": "red"}, 422),
        ({"quality": "0"}, 422),
        ({"format": "gif"}, 422),
        ({"model": "nobody"}, 404),
    ],
)
def test_bad_parameters(
    http: httpx.Client, photo: bytes, query: dict[str, str], status: int
) -> None:
    answer = http.post("/v1/colorize", content=photo, params=query)
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert answer.json()["detail"]


def test_too_many_bytes_are_refused_before_they_are_read(server: Server) -> None:
    host, port = "127.0.0.1", server.ports["http"]
    head = b"POST /v1/colorize HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"
    import socket

    with socket.create_connection((host, port), timeout=10) as connection:
        connection.sendall(head)
        assert connection.recv(64).startswith(b"HTTP/1.1 413")


def test_deadline(http: httpx.Client, stub: rehue_pb2_grpc.ColorizerStub, photo: bytes) -> None:
    answer = http.post("/v1/colorize", content=photo, headers={"X-Request-Timeout": "0.001"})
    assert answer.status_code == 504
    assert answer.json()["type"] == "urn:rehue:problem:deadline-exceeded"
    with pytest.raises(grpc.RpcError) as caught:
        stub.Colorize(rehue_pb2.ColorizeRequest(image=photo), timeout=0.002)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_rest_of_the_routes(http: httpx.Client) -> None:
    assert http.get("/healthz").text == "ok"
    assert http.get("/readyz").text == "ready"
    models = {model["name"]: model for model in http.get("/v1/models").json()["models"]}
    assert models["rehue"]["default"]
    assert models["seed"]["state"] == "READY"
    assert "/v1/colorize" in http.get("/openapi.json").json()["paths"]
    assert "<html" in http.get("/").text
    missing = http.get("/v2/nothing")
    assert (missing.status_code, missing.json()["status"]) == (404, 404)
    assert http.get("/v1/colorize").status_code == 405


def test_the_api_page_loads_nothing_from_elsewhere(http: httpx.Client) -> None:
    links = re.findall(r'(?:src|href)="([^"]+)"', http.get("/docs").text)
    assert {Path(link).suffix for link in links} == {".js", ".css", ".svg", ".json"}
    for link in links:
        assert link.startswith("/")
        assert http.get(link).status_code == 200
    assert http.get("/docs/static/nothing.js").status_code == 404


def test_metrics_count_what_was_answered(server: Server, http: httpx.Client, photo: bytes) -> None:
    http.post("/v1/colorize", content=photo)
    http.post("/v1/colorize", content=b"junk")
    wanted = ['outcome="ok"', 'outcome="INVALID_IMAGE"', 'stage="infer"', "rehue_triton_healthy{"]
    text = ""
    for _ in range(60):  # Ray gathers every 10 s
        text = httpx.get(f"http://127.0.0.1:{server.ports['metrics']}/metrics").text
        if all(word in text for word in wanted):
            return
        time.sleep(0.5)
    raise AssertionError("\n".join(line for line in text.splitlines() if "rehue" in line))


def test_grpc(stub: rehue_pb2_grpc.ColorizerStub, photo: bytes) -> None:
    answer = stub.Colorize(rehue_pb2.ColorizeRequest(image=photo, id="one"))
    assert (answer.id, answer.media_type, answer.model) == ("one", "image/jpeg", "rehue/1")
    assert answer.request_id
    assert answer.timings.infer > 0
    assert open_image(answer.image).size == (512, 512)


def test_stream_goes_on_after_a_bad_photograph(
    stub: rehue_pb2_grpc.ColorizerStub, photo: bytes
) -> None:
    sent = {str(number): b"junk" if number == 3 else photo for number in range(20)}
    requests = (rehue_pb2.ColorizeRequest(id=id, image=image) for id, image in sent.items())
    answers = {answer.id: answer for answer in stub.ColorizeStream(requests)}
    assert answers.keys() == sent.keys()
    assert answers["3"].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert [id for id, answer in answers.items() if not answer.image] == ["3"]


def test_abandoned_stream_leaves_the_server_well(
    stub: rehue_pb2_grpc.ColorizerStub, photo: bytes
) -> None:
    stream = stub.ColorizeStream(rehue_pb2.ColorizeRequest(image=photo) for _ in range(50))
    next(stream)
    stream.cancel()
    began = time.monotonic()
    assert stub.Colorize(rehue_pb2.ColorizeRequest(image=photo)).image
    assert time.monotonic() - began < 30


def test_health_and_reflection_read_compressed_messages(server: Server) -> None:
    """With names that compression makes smaller, or the client would send them as they are."""
    long = "x" * 1000
    with grpc.insecure_channel(
        server.grpc_url.removeprefix("grpc://"), compression=grpc.Compression.Gzip
    ) as channel:
        with pytest.raises(grpc.RpcError, match="unknown service"):
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=long))
        call = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        request = reflection_pb2.ServerReflectionRequest(list_services="", host=long)
        (answer,) = call(iter([request]), timeout=30)
    assert answer.list_services_response.service


def test_health_and_reflection(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service="rehue.v1.Colorizer")
    assert health.Check(request).status == health_pb2.HealthCheckResponse.SERVING
    assert next(health.Watch(request)).status == health_pb2.HealthCheckResponse.SERVING
    assert "rehue.v1.Colorizer" in ProtoReflectionDescriptorDatabase(channel).get_services()


def test_reflection_version_1(channel: grpc.Channel) -> None:
    """The messages are those of v1alpha, for which alone there are stubs."""
    name = "grpc.reflection.v1.ServerReflection"
    call = channel.stream_stream(
        f"/{name}/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="rehue.v1.Colorizer"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=name),
    ]
    listed, ours, own = call(iter(requests), timeout=30)
    names = {service.name for service in listed.list_services_response.service}
    assert {"rehue.v1.Colorizer", "grpc.health.v1.Health", name} <= names
    assert rehue_pb2.DESCRIPTOR.serialized_pb in ours.file_descriptor_response.file_descriptor_proto
    (file,) = own.file_descriptor_response.file_descriptor_proto
    assert FileDescriptorProto.FromString(file).package == "grpc.reflection.v1"
