"""An archive's scan through the running server: depth, pages, captions, the mark."""

import io
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pillow_heif
import pytest
import tifffile
from paths import PHOTOS
from PIL import Image

from rehue_client import Client, Picture
from rehue_serve.testing.servers import Server

CAPTION = "Market, Cologne 1912"


def write_scan(pages: int = 2) -> bytes:
    """A 16-bit TIFF with a caption and 600 dpi."""
    gray = np.asarray(Image.open(PHOTOS / "skimage_coffee.jpg").convert("L"))[::2, ::2]
    deep = gray.astype(np.uint16) * 257 + 100
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as writer:
        for _ in range(pages):
            writer.write(
                deep, photometric="minisblack", description=CAPTION, metadata=None,
                resolution=(600, 600), resolutionunit="INCH",
            )  # fmt: skip
    return out.getvalue()


def check_scan(data: bytes) -> None:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert len(file.pages) == 2
        first = file.pages.first
        assert first.dtype == np.uint16
        assert first.shape == (200, 300, 3)
        assert first.tags[270].value == CAPTION
        assert first.tags[282].value == (600, 1)
        assert b"compositeWithTrainedAlgorithmicMedia" in first.tags[700].value
        colored = first.asarray()
    assert colored.std() > 1000
    # 16 bits that are not 8 bits spread out.
    assert len(np.unique(colored & 0xFF)) > 100


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_scan_keeps_depth_pages_and_caption(server: Server, protocol: str) -> None:
    with Client(server.http_url if protocol == "http" else server.grpc_url) as client:
        picture: Picture = client.colorize(write_scan())
        assert (picture.pages, picture.frames) == (2, 2)
        check_scan(picture.data)
        bare = client.colorize(write_scan(), metadata="none").data
    assert CAPTION.encode() not in bare
    assert b"compositeWithTrainedAlgorithmicMedia" in bare


def test_the_command_keeps_them_too(server: Server, tmp_path: Path) -> None:
    (tmp_path / "scan.tif").write_bytes(write_scan())
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "rehue_client",
        "colorize",
        tmp_path / "scan.tif",
    ]
    options: list[str | Path] = ["-o", tmp_path / "out", "--server", server.grpc_url]
    subprocess.run([*command, *options], check=True, capture_output=True)
    check_scan((tmp_path / "out" / "scan.tif").read_bytes())


def test_pages_need_a_format_that_holds_them(server: Server) -> None:
    answer = httpx.post(
        f"{server.http_url}/v1/colorize",
        params={"format": "jpeg"},
        content=write_scan(),
        timeout=60,
    )
    assert answer.status_code == 422
    assert "2 pages can only be returned as tiff" in answer.json()["detail"]


def test_a_phones_heic_is_answered_as_jpeg(server: Server) -> None:
    out = io.BytesIO()
    picture = Image.open(PHOTOS / "skimage_coffee.jpg").resize((300, 200))
    pillow_heif.from_pillow(picture).save(out, quality=80)
    answer = httpx.post(f"{server.http_url}/v1/colorize", content=out.getvalue(), timeout=60)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == (300, 200)
