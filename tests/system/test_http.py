"""HTTP as clients expect it: methods, forms, unknown parameters, encodings, other origins."""

import gzip
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from serving import serve_http, start_service

from rehue_serve.embedded import EmbeddedTriton

ORIGIN = "https://archive.example"


@pytest.fixture
async def client(triton: EmbeddedTriton) -> AsyncIterator[httpx.AsyncClient]:
    async with start_service(triton.url) as service, serve_http(service) as client:
        yield client


def build_raw_form(*parts: tuple[str, bytes]) -> dict[str, Any]:
    """A form whose parts have just these headers."""
    body = b"".join(
        b"--X\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (header.encode(), data)
        for header, data in parts
    )
    headers = {"Content-Type": "multipart/form-data; boundary=X"}
    return {"content": body + b"--X--\r\n", "headers": headers}


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/v1/models", "/openapi.json"])
async def test_head_is_get_without_a_body(client: httpx.AsyncClient, path: str) -> None:
    got, head = await client.get(path), await client.head(path)
    assert head.status_code == got.status_code == 200
    assert head.headers["content-type"] == got.headers["content-type"]
    assert head.headers["content-length"] == got.headers["content-length"]
    assert not head.content


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/colorize", {"POST"}),
        ("HEAD", "/v1/colorize", {"POST"}),
        ("PUT", "/v1/colorize", {"POST"}),
        ("POST", "/healthz", {"GET", "HEAD"}),
    ],
)
async def test_wrong_method_is_answered_with_the_allowed_ones(
    client: httpx.AsyncClient, method: str, path: str, allowed: set[str]
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == allowed
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_slash_at_the_end_changes_nothing(client: httpx.AsyncClient, photo: bytes) -> None:
    assert (await client.post("/v1/colorize/", content=photo)).status_code == 200
    assert (await client.get("/healthz/")).text == "ok"


async def test_form_fields_are_parameters(client: httpx.AsyncClient, photo: bytes) -> None:
    files = {"image": ("a.jpg", photo, "image/jpeg")}
    answer = await client.post(
        "/v1/colorize", files=files, data={"format": "png", "strength": "0"}, params={"quality": 80}
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("query", "fields", "words"),
    [
        ({"strenght": "1"}, {}, ["strenght", "did you mean strength?"]),
        ({}, {"Format": "png"}, ["Format", "did you mean format?"]),
        ({"utm_source": "x"}, {}, ["utm_source", "there are model, strength"]),
        ({}, {"strength": "3"}, ["strength", "less than or equal to 2"]),
        ({"format": "png"}, {"format": "jpeg"}, ["format is given twice"]),
        ({"a" * 5000: "1"}, {}, ["is not a parameter"]),
    ],
)
async def test_wrong_parameters_are_named(
    client: httpx.AsyncClient,
    photo: bytes,
    query: dict[str, str],
    fields: dict[str, str],
    words: list[str],
) -> None:
    answer = await client.post(
        "/v1/colorize", params=query, data=fields, files={"image": ("a.jpg", photo)}
    )
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:rehue:problem:invalid-parameter"
    assert all(word in answer.json()["detail"] for word in words), answer.json()["detail"]
    assert len(answer.content) < 2000


async def test_a_second_file_is_refused(client: httpx.AsyncClient, photo: bytes) -> None:
    files = {"image": ("a.jpg", photo), "hintz": ("b.png", photo)}
    answer = await client.post("/v1/colorize", files=files)
    assert answer.status_code == 422
    assert "hintz" in answer.json()["detail"]


async def test_a_form_without_the_photograph_is_no_image(
    client: httpx.AsyncClient, photo: bytes
) -> None:
    answer = await client.post("/v1/colorize", files={"other": ("a.jpg", photo)})
    assert answer.status_code == 400
    assert "field 'image'" in answer.json()["detail"]


async def test_a_file_named_by_filename_star_alone_is_a_file(
    client: httpx.AsyncClient, photo: bytes
) -> None:
    form = build_raw_form(("name=\"image\"; filename*=UTF-8''na%C3%AFve.jpg", photo))
    answer = await client.post("/v1/colorize", **form)
    assert answer.status_code == 200


async def test_a_content_encoding_is_named(client: httpx.AsyncClient, photo: bytes) -> None:
    answer = await client.post(
        "/v1/colorize", content=gzip.compress(photo), headers={"Content-Encoding": "gzip"}
    )
    assert answer.status_code == 415
    assert "Content-Encoding gzip" in answer.json()["detail"]
    plain = await client.post(
        "/v1/colorize", content=photo, headers={"Content-Encoding": "identity"}
    )
    assert plain.status_code == 200


async def test_a_long_model_name_is_no_such_model(client: httpx.AsyncClient, photo: bytes) -> None:
    answers = [
        await client.post("/v1/colorize", content=photo, params={"model": "a" * 12000})
        for _ in range(4)
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert (await client.post("/v1/colorize", content=photo)).status_code == 200


@pytest.mark.parametrize("origins", [ORIGIN, f"https://other.example, {ORIGIN}", "*"])
async def test_pages_of_allowed_origins_may_ask(
    triton: EmbeddedTriton, photo: bytes, origins: str
) -> None:
    preflight = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, x-request-timeout",
    }
    async with (
        start_service(triton.url, cors_origins=origins) as service,
        serve_http(service) as client,
    ):
        asked = await client.options("/v1/colorize", headers=preflight)
        answer = await client.post("/v1/colorize", content=photo, headers={"Origin": ORIGIN})
        refused = await client.post("/v1/colorize", content=b"", headers={"Origin": ORIGIN})
    assert asked.status_code == 200
    assert "POST" in asked.headers["access-control-allow-methods"]
    for response in (asked, answer, refused):
        assert response.headers["access-control-allow-origin"] in (ORIGIN, "*")
    assert refused.status_code == 400
    exposed = answer.headers["access-control-expose-headers"]
    assert {"Server-Timing", "X-Rehue-Model", "Retry-After"} <= set(exposed.split(", "))


async def test_pages_of_other_origins_may_not(client: httpx.AsyncClient, photo: bytes) -> None:
    answer = await client.post("/v1/colorize", content=photo, headers={"Origin": ORIGIN})
    assert "access-control-allow-origin" not in answer.headers


async def test_the_description_names_the_key_the_timeout_and_the_fields(
    client: httpx.AsyncClient,
) -> None:
    description = (await client.get("/openapi.json")).json()
    route = description["paths"]["/v1/colorize"]["post"]
    names = {parameter["name"] for parameter in route["parameters"]}
    answer = {"model", "strength", "format", "quality", "metadata", "depth", "profile", "mark"}
    edits = {"warmth", "tint", "hints", "palette", "palette_strength", "look"}
    assert names == answer | edits | {"X-Request-Timeout"}
    (scheme,) = description["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert {} in route["security"]  # a server without keys asks for none
    assert len(route["security"]) == 2
    form = route["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert set(form) == answer | edits | {"image", "reference"}
