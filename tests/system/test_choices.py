"""Edits of colours over HTTP, gRPC, the SDK and the command, on a real Triton."""

import base64
import hashlib
import io
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import cv2
import grpc
import httpx
import numpy as np
import pytest
import scripted_triton
from paths import MODELS, PHOTOS
from PIL import Image
from serving import serve_grpc, serve_http, start_service
from skimage.color import deltaE_ciede2000, rgb2lab

from rehue_client import Edits, Hint
from rehue_client.v1 import rehue_pb2
from rehue_serve.metadata.xmp import SOURCE_TYPE
from rehue_serve.service import Service

HINTS: list[dict[str, Any]] = [
    {"x": 0.3, "y": 0.6, "color": "#8a5a5a"},
    {"x": 0.9, "y": 0.1, "color": "gray"},
]
PNG = {"format": "png"}


@pytest.fixture(scope="module")
def scripted() -> Iterator[scripted_triton.ScriptedTriton]:
    """The real network, in this process."""
    network = scripted_triton.load_network(MODELS / "rehue" / "1" / "model.onnx")
    with scripted_triton.serve(network) as running:
        yield running


@pytest.fixture
async def service(scripted: scripted_triton.ScriptedTriton) -> AsyncIterator[Service]:
    async with start_service(scripted.url) as running:
        yield running


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with serve_http(service) as client:
        yield client


def decode(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)))


def encode_tiff(pages: int) -> bytes:
    page, file = Image.new("L", (32, 24), 128), io.BytesIO()
    page.save(file, "TIFF", save_all=True, append_images=[page] * (pages - 1))
    return file.getvalue()


async def test_edits_are_the_same_over_http_and_grpc(
    service: Service, http: httpx.AsyncClient, photo: bytes
) -> None:
    fields = {"strength": "0.8", "warmth": "0.3", "tint": "-0.1", "hints": json.dumps(HINTS), **PNG}
    form = await http.post("/v1/colorize", files={"image": photo}, data=fields)
    query = await http.post("/v1/colorize", content=photo, params=fields)
    assert form.status_code == query.status_code == 200, form.text
    async with serve_grpc(service) as stub:
        answer = await stub.Colorize(
            rehue_pb2.ColorizeRequest(
                image=photo,
                strength=0.8,
                format="FORMAT_PNG",
                edits=rehue_pb2.Edits(
                    warmth=0.3, tint=-0.1, hints=[rehue_pb2.Hint(**hint) for hint in HINTS]
                ),
            )
        )
    assert form.content == query.content == answer.image
    picture = decode(form.content)
    height, width = picture.shape[:2]
    pixel = picture[int(0.6 * height), int(0.3 * width)]
    found, wanted = rgb2lab(np.stack([pixel, np.array([0x8A, 0x5A, 0x5A])]) / 255.0)
    assert deltaE_ciede2000(found, [found[0], *wanted[1:]]) < 2
    assert b"<rehue:Edits>sha256:" in form.content


async def test_answer_of_the_network_is_kept_for_the_next_edit(
    service: Service, http: httpx.AsyncClient, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    infer = service.triton.infer

    async def count(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return await infer(*arguments)

    monkeypatch.setattr(service.triton, "infer", count)
    pictures = []
    for warmth in ("0.1", "0.1", "0.2"):
        answer = await http.post("/v1/colorize", content=photo, params={"warmth": warmth, **PNG})
        pictures.append(answer.content)
        # What only the network needs is not computed again.
        is_first = len(pictures) == 1
        assert ("prepare;dur=0.00" in answer.headers["Server-Timing"].split(", ")) != is_first
    assert calls == 1
    assert pictures[0] == pictures[1] != pictures[2]
    for _ in range(2):  # without edits nothing is kept
        await http.post("/v1/colorize", content=photo)
    assert calls == 3


async def test_picture_is_made_again_from_its_kept_edits(
    http: httpx.AsyncClient, photo: bytes, tmp_path: Path
) -> None:
    """The metadata names the document; the document alone gives the picture again, bit by bit."""
    edits = Edits(warmth=0.2, tint=-0.15, palette=("#5b6b7d", "#c9a27e"), palette_strength=0.7,
                  hints=(Hint(0.3, 0.6, "#8a5a5a"), Hint(1 / 3, 0.1, "gray")))  # fmt: skip
    kept = tmp_path / "edits.json"
    edits.save(kept)
    files = {"image": photo}
    first = await http.post("/v1/colorize", files=files, data=edits.to_parameters())
    again = await http.post("/v1/colorize", files=files, data=Edits.load(kept).to_parameters())
    assert first.status_code == 200, first.text
    assert first.content == again.content
    recorded = re.findall(rb"<rehue:Edits>sha256:([0-9a-f]{64})<", first.content)
    # As docs/how-to/colours.md describes it: numbers to six digits, sorted keys, no spaces.
    document = json.loads(kept.read_text(), parse_float=lambda text: round(float(text), 6))
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    assert recorded == [hashlib.sha256(text.encode()).hexdigest().encode()]


async def test_no_edits_give_the_automatic_picture(http: httpx.AsyncClient, photo: bytes) -> None:
    plain = await http.post("/v1/colorize", content=photo, params=PNG)
    empty = await http.post("/v1/colorize", files={"image": photo}, data={"hints": "[]", **PNG})
    assert plain.status_code == empty.status_code == 200
    assert plain.content == empty.content
    assert b"rehue:Edits" not in plain.content


async def test_reference_is_taken_over(http: httpx.AsyncClient, photo: bytes) -> None:
    """A reference gives the colours that it has, as its palette does."""
    reference = io.BytesIO()
    bands = np.repeat(
        np.array([[[20, 60, 30]], [[90, 160, 90]], [[200, 240, 200]]], np.uint8), 60, 1
    )
    Image.fromarray(np.repeat(bands, 20, 0)).save(reference, "PNG")
    files = {"image": photo, "reference": reference.getvalue()}
    answer = await http.post("/v1/colorize", files=files, data=PNG)
    assert answer.status_code == 200, answer.text
    plain = await http.post("/v1/colorize", content=photo, params=PNG)
    greener = rgb2lab(decode(answer.content))[..., 1].mean()
    assert greener < rgb2lab(decode(plain.content))[..., 1].mean() - 5
    palette = {"palette": "#143c1e,#5aa05a,#c8f0c8", **PNG}
    same = await http.post("/v1/colorize", content=photo, params=palette)
    assert abs(rgb2lab(decode(same.content))[..., 1].mean() - greener) < 1


async def test_candidates_are_answered_over_both_protocols(
    service: Service, http: httpx.AsyncClient, photo: bytes
) -> None:
    answer = await http.post("/v1/candidates", content=photo, params={"size": "128"})
    assert answer.status_code == 200, answer.text
    found = answer.json()["candidates"]
    assert answer.headers["x-rehue-model"] == answer.json()["model"] == "rehue/1"
    assert [version["name"] for version in found][:3] == ["as is", "warmer", "cooler"]
    assert found[1]["edits"] == {"version": 1, "warmth": 0.35}
    async with serve_grpc(service) as stub:
        request = rehue_pb2.CandidatesRequest(image=photo, size=128)
        message = await stub.Candidates(request)
    assert [version.name for version in message.candidates] == [v["name"] for v in found]
    pictures = [decode(version.image) for version in message.candidates]
    assert all(SOURCE_TYPE.encode() in version.image for version in message.candidates)
    assert all(max(picture.shape) == 128 for picture in pictures)
    assert message.candidates[1].edits.warmth == 0.35


async def test_candidates_of_other_looks_are_runs_of_the_network(
    service: Service, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They differ visibly, are paid for in places, and are made again in full by their edits."""
    photo = (PHOTOS / "lomiri_seeding_by_Clements_Engelhardt.jpg").read_bytes()  # 16:9
    runs, places = [], []
    infer = service.triton.infer

    async def watch(spec: Any, input: Any, deadline: float) -> Any:
        runs.append(input.tobytes())
        places.append(service.admission.requests_in_flight)
        return await infer(spec, input, deadline)

    monkeypatch.setattr(service.triton, "infer", watch)
    parameters = {"size": "256", "more_looks": "true"}
    answer = await http.post("/v1/candidates", content=photo, params=parameters)
    assert answer.status_code == 200, answer.text
    found = {version["name"]: version for version in answer.json()["candidates"]}
    assert [name for name in found if name.startswith("from")] == ["from farther", "from nearer"]
    assert len(set(runs)) == len(runs) == 5  # whole, farther, and three parts
    assert set(places) == {6}  # as many as a panorama takes
    assert service.admission.requests_in_flight == 0
    labs = {
        name: rgb2lab(decode(base64.b64decode(version["image"]))) for name, version in found.items()
    }
    for name in ("from farther", "from nearer"):
        for other in labs.keys() - {name}:
            distance = np.linalg.norm((labs[name] - labs[other])[..., 1:], axis=-1).mean()
            assert distance > 1.5, (name, other)
    async with serve_grpc(service) as stub:
        request = rehue_pb2.CandidatesRequest(image=photo, size=256, more_looks=True)
        message = await stub.Candidates(request)
        assert [version.name for version in message.candidates] == list(found)
        nearer = message.candidates[-1].edits
        in_full = await stub.Colorize(
            rehue_pb2.ColorizeRequest(image=photo, edits=nearer, format="FORMAT_PNG")
        )
    assert len(runs) == 5  # all of it is kept
    assert found["from nearer"]["edits"] == {"version": 1, "look": "nearer"}
    same = await http.post("/v1/colorize", content=photo, params={"look": "nearer", **PNG})
    assert same.content == in_full.image
    full = decode(in_full.image)
    small = cv2.resize(full, labs["from nearer"].shape[1::-1], interpolation=cv2.INTER_AREA)
    difference = rgb2lab(small)[..., 1:] - labs["from nearer"][..., 1:]
    assert np.linalg.norm(difference, axis=-1).mean() < 1.5


async def test_more_looks_need_places(
    service: Service, http: httpx.AsyncClient, photo: bytes
) -> None:
    service.admission._max_requests = 6
    parameters = {"more_looks": "true"}
    alone = await http.post("/v1/candidates", content=photo, params=parameters)
    assert alone.status_code == 200
    service.admission.requests_in_flight = 1  # another photograph
    beside = await http.post("/v1/candidates", content=photo, params=parameters)
    assert beside.status_code == 429
    one = await http.post("/v1/candidates", content=photo)
    assert one.status_code == 200
    service.admission.requests_in_flight = 0
    service.admission._max_requests = 2  # a server of few places answers it alone
    assert (await http.post("/v1/candidates", content=photo, params=parameters)).status_code == 200


REFUSED = [
    ({"warmth": "2"}, "warmth"),
    ({"tint": "nan"}, "tint"),
    ({"hints": "{"}, "hints"),
    ({"hints": "[" * 20_000}, "hints"),
    ({"hints": '{"x": 1}'}, "hints"),
    ({"hints": '[{"x": 1.5, "y": 0, "color": "gray"}]'}, "hints[0].x"),
    ({"hints": '[{"x": NaN, "y": 0, "color": "gray"}]'}, "hints[0].x"),
    ({"hints": '[{"x": true, "y": 0, "color": "gray"}]'}, "hints[0].x"),
    ({"hints": '[{"x": 0, "y": 0, "color": "reddish"}]'}, "hints[0].color"),
    ({"hints": '[{"x": 0, "y": 0, "color": 7}]'}, "hints[0].color"),
    ({"hints": '[{"x": 0, "y": 0, "color": "gray", "z": 1}]'}, "hints[0]"),
    ({"hints": json.dumps(HINTS[:1] * 10_000)}, "hints has 10,000 points; at most 100 are allowed"),
    ({"palette": "red"}, "palette"),
    ({"palette": ",".join(["#123456"] * 17)}, "palette"),
    ({"palette_strength": "1.5"}, "palette_strength"),
    ({"reference": "text"}, "reference"),
    ({"look": "sideways"}, "look"),
]


@pytest.mark.parametrize("path", ["/v1/colorize", "/v1/candidates"])
async def test_nonsense_is_refused_and_named(
    http: httpx.AsyncClient, photo: bytes, path: str
) -> None:
    for fields, name in REFUSED:
        answer = await http.post(path, files={"image": photo}, data=fields)
        assert answer.status_code == 422, (fields, answer.text[:300])
        assert answer.json()["detail"].startswith(name), answer.text
    for reference in (b"no picture", b"", photo[:3000], encode_tiff(1)):
        answer = await http.post(path, files={"image": photo, "reference": reference})
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith("reference"), answer.text
    size = await http.post("/v1/candidates", content=photo, params={"size": "10000"})
    assert size.status_code == 422
    assert "size" in size.json()["detail"]
    looks = await http.post("/v1/candidates", content=photo, params={"more_looks": "three"})
    assert looks.status_code == 422
    assert looks.json()["detail"].startswith("more_looks")


async def test_nonsense_is_refused_over_grpc(service: Service, photo: bytes) -> None:
    refused = [
        (rehue_pb2.Edits(warmth=float("inf")), "warmth"),
        (rehue_pb2.Edits(hints=[rehue_pb2.Hint(x=-1, color="gray")]), "hints[0].x"),
        (rehue_pb2.Edits(hints=[rehue_pb2.Hint(color="gray")] * 10_000), "hints has 10,000"),
        (rehue_pb2.Edits(hints=[rehue_pb2.Hint()]), "hints[0].color"),
        (rehue_pb2.Edits(reference=b"no picture"), "reference"),
        (rehue_pb2.Edits(reference=photo, palette=["#123456"]), "reference and palette"),
        (rehue_pb2.Edits(look=cast("Any", 7)), "look is '7'; it must be one of whole"),
    ]
    async with serve_grpc(service) as stub:
        for edits, name in refused:
            for call, request in (
                (stub.Colorize, rehue_pb2.ColorizeRequest(image=photo, edits=edits)),
                (stub.Candidates, rehue_pb2.CandidatesRequest(image=photo, edits=edits)),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(request)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert str(caught.value.details()).startswith(name)


async def test_pages_have_one_balance_and_no_hints(http: httpx.AsyncClient) -> None:
    pages = encode_tiff(3)
    warm = await http.post("/v1/colorize", content=pages, params={"warmth": "0.5"})
    assert warm.status_code == 200
    assert warm.headers["x-rehue-pages"] == "3/3"
    refused = await http.post(
        "/v1/colorize", files={"image": pages}, data={"hints": json.dumps(HINTS)}
    )
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith("hints are for photographs of one page")


def test_command_and_sdk(tmp_path: Path, server: Any) -> None:
    """The sheet, the versions with their edits, and a version in full, over both protocols."""
    from rehue_client import Client, Edits, Hint
    from rehue_client.command import main

    photo = PHOTOS / "skimage_coffee.jpg"
    edits = Edits(warmth=0.2, hints=(Hint(0.5, 0.2, "#1f5a2b"),), reference=photo)
    pictures = []
    for url in (server.http_url, server.grpc_url):
        with Client(url) as client:
            pictures.append(client.colorize(photo, edits=edits, format="png").data)
            versions = client.candidates(photo, size=200)
        assert [version.name for version in versions][1] == "warmer"
        assert versions[1].edits == Edits(warmth=0.35)
    assert pictures[0] == pictures[1]
    at = ["--server", server.grpc_url]
    assert main(["candidates", str(photo), "-o", str(tmp_path / "sheet.png"), *at]) == 0
    assert Image.open(tmp_path / "sheet.png").width > 5 * 500
    assert main(["candidates", str(photo), "-o", str(tmp_path / "all"), *at]) == 0
    warmer, given = tmp_path / "all" / "warmer.json", tmp_path / "given.png"
    assert main(["colorize", str(photo), "-o", str(given), "--edits", str(warmer), *at]) == 0
    same = tmp_path / "same.png"
    assert main(["colorize", str(photo), "-o", str(same), "--warmth", "0.35", *at]) == 0
    assert given.read_bytes() == same.read_bytes()
    looks = ["candidates", str(photo), "-o", str(tmp_path / "all"), "--more-looks", *at]
    assert main(looks) == 0
    nearer = tmp_path / "all" / "from-nearer.json"
    assert main(["colorize", str(photo), "-o", str(given), "--edits", str(nearer), *at]) == 0
    assert main(["colorize", str(photo), "-o", str(same), "--look", "nearer", *at]) == 0
    assert given.read_bytes() == same.read_bytes()
    with Client(server.http_url) as client:
        names = [version.name for version in client.candidates(photo, more_looks=True)]
    assert "from nearer" in names
    bad = ["colorize", str(photo), "-o", str(same), "--hint", "0.5=red", *at]
    with pytest.raises(SystemExit):
        main(bad)
