"""The SDK and the command on the real system, over both protocols."""

import io
import re
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from bad_images import encode_image
from client_calls import PHOTO as COFFEE
from client_calls import Colorize, colorize_sync
from paths import PHOTOS
from PIL import Image

from rehue_client import (
    Client,
    DeadlineExceeded,
    ImageTooLarge,
    InvalidImage,
    InvalidParameter,
    Picture,
    RehueError,
    UnknownModel,
    UnsupportedImage,
)
from rehue_serve.pages import FILES
from rehue_serve.testing.servers import Server


@pytest.fixture(params=["http", "grpc"])
def url(request: pytest.FixtureRequest, server: Server) -> str:
    return server.http_url if request.param == "http" else server.grpc_url


def open_picture(picture: Picture) -> Image.Image:
    return Image.open(io.BytesIO(picture.data))


def test_photograph_is_colorized_at_its_size(colorize: Colorize, url: str) -> None:
    picture = colorize(url)
    with Image.open(COFFEE) as source:
        assert open_picture(picture).size == source.size
    pixels = np.asarray(open_picture(picture).convert("RGB"), np.int16)
    assert np.ptp(pixels, axis=2).mean() > 1
    assert picture.media_type == "image/jpeg"
    assert picture.model.startswith("rehue/")
    assert picture.request_id
    stages = vars(picture.timings)
    assert all(value > 0 for value in stages.values()), stages


def test_options_have_their_effect(colorize: Colorize, url: str) -> None:
    picture = colorize(url, model="seed", strength=0.0, format="png")
    assert picture.model.startswith("seed/")
    assert (picture.media_type, open_picture(picture).format) == ("image/png", "PNG")
    pixels = np.asarray(open_picture(picture).convert("RGB"), np.int16)
    assert np.ptp(pixels, axis=2).max() <= 1  # no chroma is left
    small, large = (colorize(url, format="jpeg", quality=quality) for quality in (20, 95))
    assert len(small.data) < len(large.data) / 2


def test_both_protocols_return_the_same_picture(server: Server) -> None:
    over_http, over_grpc = (
        colorize_sync(url, format="png") for url in (server.http_url, server.grpc_url)
    )
    assert over_http.data == over_grpc.data


@pytest.mark.parametrize(
    ("source", "options", "error"),
    [
        (b"", {}, InvalidImage),
        (b"no picture at all", {}, InvalidImage),
        (COFFEE.read_bytes()[:9000], {}, InvalidImage),
        (encode_image(Image.new("L", (8, 8)), "BMP"), {}, UnsupportedImage),
        (encode_image(Image.new("1", (60_000, 60_000)), "PNG"), {}, ImageTooLarge),
        (COFFEE, {"strength": 2.5}, InvalidParameter),
        (COFFEE, {"quality": 0}, InvalidParameter),
        (COFFEE, {"model": "nobody"}, UnknownModel),
    ],
    ids=["empty", "text", "cut short", "BMP", "bomb", "strength", "quality", "model"],
)
def test_each_refusal_has_its_error(
    colorize: Colorize,
    url: str,
    source: object,
    options: dict[str, object],
    error: type[RehueError],
) -> None:
    with pytest.raises(error) as caught:
        colorize(url, source, **options)
    assert type(caught.value) is error
    assert str(caught.value)
    assert caught.value.request_id


def test_timeout_raises(colorize: Colorize, url: str) -> None:
    with pytest.raises(DeadlineExceeded):
        colorize(url, timeout=0.005)


def test_every_sample_at_once(url: str) -> None:
    paths = sorted(PHOTOS.glob("*.jpg"))
    with Client(url) as client:
        results = {result.source: result for result in client.colorize_many(paths)}
    assert {path: results[path].error for path in paths} == dict.fromkeys(paths)


def test_ready_and_models(url: str) -> None:
    with Client(url) as client:
        assert client.ready()
        models = {model.name: model for model in client.models()}
    assert {"rehue", "seed"} <= models.keys()
    assert models["rehue"].default
    assert models["rehue"].state == "READY"


def test_command_on_a_folder(server: Server, url: str, tmp_path: Path) -> None:
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    with Image.open(COFFEE) as photograph:
        photograph.convert("L").save(tmp_path / "photos" / "deep" / "old.png")
    arguments = ["colorize", "photos", "-o", "out", "--server", url]
    subprocess.run([sys.executable, "-m", "rehue_client", *arguments], cwd=tmp_path, check=True)
    with Image.open(tmp_path / "out" / "deep" / "old.png") as picture:
        assert picture.format == "PNG"
        assert picture.mode == "RGB"


def test_page_is_served_and_loads_nothing_from_elsewhere(server: Server) -> None:
    assert "Drop photographs here" in httpx.get(server.http_url).text
    for file in FILES.iterdir():
        if file.is_dir():
            continue
        text = httpx.get(f"{server.http_url}/page/{file.name}").raise_for_status().text
        # The only other address is SVG's namespace, which is not fetched.
        assert set(re.findall(r"""(?:https?:|["'(])//[^\s"'>)]+""", text)) <= {
            "http://www.w3.org/2000/svg"
        }
