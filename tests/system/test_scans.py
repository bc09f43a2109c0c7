"""A file of every kind through the running server: over HTTP, gRPC and the command.

The files' scene is known, and the answers are read by libraries that did not write them: Pillow
and tifffile.
"""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tifffile
from icc import ADOBE_RGB
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from scans import DEEP, GRAY, REFUSED, RGB, Scan, list_scans, save, write_tiff
from skimage.color import rgb2lab

from rehue_client import Client, UnsupportedImage
from rehue_serve.testing.servers import Server

SCANS = {scan.file: scan for scan in list_scans()}
WAYS = ["http", "grpc", "command"]
STRENGTH = 0.2  # so that no colour leaves sRGB, which would change L
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png"}  # of answers to formats that are only read


def run_command(server: Server, *arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "rehue_client", "colorize", "--server", server.grpc_url]
    return subprocess.run(
        [*words, *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def outputs(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the command makes of a folder with every file."""
    folder, out = tmp_path_factory.mktemp("scans"), tmp_path_factory.mktemp("out")
    for number, scan in enumerate(SCANS.values()):
        (folder / str(number)).mkdir()
        (folder / str(number) / scan.file).write_bytes(scan.data)
    done = run_command(server, folder, "-o", out, "--strength", STRENGTH)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [next((out / str(number)).iterdir()).read_bytes() for number in range(len(SCANS))]
    return dict(zip(SCANS, found, strict=True))


def send(server: Server, way: str, data: bytes, tmp_path: Path, **options: Any) -> bytes:
    """Colorize a file in one of the three ways."""
    options = {"strength": STRENGTH} | options
    if way != "command":
        with Client(server.http_url if way == "http" else server.grpc_url) as client:
            return client.colorize(data, **options).data
    (tmp_path / "scan.tif").write_bytes(data)
    given = [word for name, value in options.items() for word in (f"--{name}", value)]
    done = run_command(server, tmp_path / "scan.tif", "-o", tmp_path / "answer.tif", *given)
    assert done.returncode == 0, done.stdout + done.stderr
    return (tmp_path / "answer.tif").read_bytes()


def read_pages(data: bytes) -> tuple[str, list[NDArray[Any]]]:
    """Read the format of an answer, and its pages, HWC."""
    if data[:2] == b"II":
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            return "TIFF", [page.asarray() for page in file.pages]
    image = Image.open(io.BytesIO(data))
    if data[24:26] == b"\x10\x02" and image.format == "PNG":  # 16-bit RGB, which Pillow halves
        import pyvips

        return "PNG", [pyvips.Image.new_from_buffer(data, "").numpy()]
    return str(image.format), [np.asarray(image)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("file", list(SCANS))
def test_every_kind_of_file(
    server: Server, outputs: dict[str, bytes], tmp_path: Path, file: str, way: str
) -> None:
    scan: Scan = SCANS[file]
    answer = outputs[file] if way == "command" else send(server, way, scan.data, tmp_path)
    format, pages = read_pages(answer)
    assert format == scan.format
    assert len(pages) == len(scan.seen)
    for page, seen in zip(pages, scan.seen, strict=True):
        assert page.dtype.itemsize * 8 == scan.bits
        assert page.shape[:2] == seen.shape
        found = rgb2lab(page[..., :3] / np.iinfo(page.dtype).max)[..., 0]
        shown = np.ones(seen.shape, bool) if scan.alpha is None else scan.alpha > 0
        assert np.abs(found - seen)[shown].mean() < scan.tolerance
        if scan.alpha is None:
            assert page.shape[2] == 3
        else:
            assert np.array_equal(page[..., 3], scan.alpha)


@pytest.mark.parametrize("file", list(REFUSED))
def test_what_cannot_be_read_right_is_refused_by_name(
    server: Server, tmp_path: Path, file: str
) -> None:
    data, words = REFUSED[file]
    answer = httpx.post(f"{server.http_url}/v1/colorize", content=data, timeout=60)
    assert answer.status_code == 415
    assert words in answer.json()["detail"]
    with Client(server.grpc_url) as client, pytest.raises(UnsupportedImage, match=words):
        client.colorize(data)
    (tmp_path / file).write_bytes(data)
    done = run_command(server, tmp_path / file, "-o", tmp_path / "out", "--json")
    assert done.returncode == 1
    failure = json.loads(done.stdout.splitlines()[0])
    assert failure["reason"] == "UNSUPPORTED_IMAGE"
    assert words in failure["message"]


@pytest.mark.parametrize("way", WAYS)
def test_eight_bits_on_request(server: Server, tmp_path: Path, way: str) -> None:
    _, pages = read_pages(send(server, way, write_tiff(DEEP), tmp_path, depth="8"))
    assert pages[0].dtype == np.uint8


@pytest.mark.parametrize("way", WAYS)
def test_a_wide_profile_on_request(server: Server, tmp_path: Path, way: str) -> None:
    """littlecms reads the answer's own profile; L is the photograph's, as the profile says."""
    data = save(RGB, "TIFF", icc_profile=ADOBE_RGB)
    answer = Image.open(
        io.BytesIO(send(server, way, data, tmp_path, profile="keep", metadata="none"))
    )
    assert answer.info["icc_profile"] == ADOBE_RGB
    found, expected = (measure_lab(np.asarray(picture)) for picture in (answer, RGB))
    assert np.abs(found[..., 0] - expected[..., 0]).mean() < 0.6
    assert np.abs(found[..., 1:]).max() >= 2  # it has colours


def measure_lab(pixels: NDArray[Any]) -> NDArray[Any]:
    source = ImageCms.getOpenProfile(io.BytesIO(ADOBE_RGB))
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("LAB"), "RGB", "LAB")
    found = ImageCms.applyTransform(Image.fromarray(pixels), transform)
    assert found is not None
    lightness, a, b = (np.asarray(band).astype(float) for band in found.split())
    return np.dstack([lightness / 2.55, a - 128, b - 128])


@pytest.mark.parametrize("way", WAYS)
def test_a_visible_mark_on_request(server: Server, tmp_path: Path, way: str) -> None:
    picture = save(np.full((120, 160), 120, np.uint8), "TIFF")
    plain, marked = (
        read_pages(send(server, way, picture, tmp_path, mark=mark))[1][0].astype(int)
        for mark in ("none", "visible")
    )
    rows, columns = np.nonzero(np.abs(plain - marked).max(axis=2))
    assert rows.min() > 60  # the lower right corner alone
    assert columns.min() > 60
    assert marked[60:, 60:].max() >= 240  # white letters


@pytest.mark.parametrize("name", ["depth", "profile", "mark", "metadata"])
def test_other_words_are_refused(server: Server, name: str) -> None:
    answer = httpx.post(
        f"{server.http_url}/v1/colorize", params={name: "nonsense"},
        content=save(GRAY, "PNG"), timeout=60,
    )  # fmt: skip
    assert answer.status_code == 422
    assert name in answer.json()["detail"]


@pytest.mark.parametrize("way", WAYS)
def test_metadata_that_is_too_large_is_said_to_be_missing(
    server: Server, way: str, tmp_path: Path
) -> None:
    packet = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + b"<a b='c'/>" * 150_000 + b"</x:xmpmeta>"
    path, out = tmp_path / "scan.png", tmp_path / "answer.png"
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", packet.decode())
    Image.new("L", (48, 32), 120).save(path, pnginfo=text)
    if way == "command":
        done = run_command(server, path, "-o", out, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout.splitlines()[0])["dropped"] == ["xmp"]
        assert "not kept: xmp" in done.stderr
        kept = run_command(server, path, "-o", out, "--json", "--metadata", "none")
        assert "dropped" not in json.loads(kept.stdout.splitlines()[0])
        return
    with Client(server.http_url if way == "http" else server.grpc_url) as client:
        assert client.colorize(path).dropped == ("xmp",)
        assert client.colorize(path, metadata="none").dropped == ()
    if way == "http":
        answer = httpx.post(f"{server.http_url}/v1/colorize", content=path.read_bytes())
        assert answer.headers["X-Rehue-Dropped"] == "xmp"
