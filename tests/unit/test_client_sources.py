"""What the SDK accepts as a photograph, and what it says about the rest."""

import array
import asyncio
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rehue_client import AsyncClient, Client, ImageTooLarge, Result, SourceError
from rehue_serve.testing.scripted import ScriptedServer

PHOTO = Path(__file__).parents[1] / "photos" / "skimage_coffee.jpg"
DATA = PHOTO.read_bytes()


@pytest.fixture
def client(scripted: ScriptedServer) -> Iterator[Client]:
    with Client(scripted.grpc_url) as client:
        yield client


def collect_both(scripted: ScriptedServer, sources: list[Any]) -> list[list[Result]]:
    """Return the results of both clients for the same sources."""

    async def run() -> list[Result]:
        async with AsyncClient(scripted.grpc_url) as client:
            return [result async for result in client.colorize_many(sources)]

    with Client(scripted.grpc_url) as client:
        return [list(client.colorize_many(sources)), asyncio.run(run())]


@pytest.mark.parametrize(
    "convert",
    [bytearray, memoryview, lambda data: array.array("B", data), io.BytesIO,
     lambda data: np.frombuffer(data, np.uint8)],
    ids=["bytearray", "memoryview", "array", "BytesIO", "NumPy"],
)  # fmt: skip
def test_bytes_like_objects_are_encoded_images(client: Client, convert: Any) -> None:
    assert client.colorize(convert(DATA)).data == DATA


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(6, 9), (6, 9, 1), (6, 9, 3), (6, 9, 4)], ids=str)
def test_arrays_are_sent_as_png(client: Client, dtype: type, shape: tuple[int, ...]) -> None:
    highest = np.iinfo(dtype).max
    pixels = np.random.default_rng(1).integers(0, highest, shape, dtype, endpoint=True)
    sent = client.colorize(pixels[::-1]).data  # a view with negative strides
    if shape[2:] in ((3,), (4,)) and dtype is np.uint16:
        import cv2  # Pillow reduces such files to 8 bits

        order = [2, 1, 0, 3][: shape[2]]
        decoded = cv2.imdecode(np.frombuffer(sent, np.uint8), cv2.IMREAD_UNCHANGED)[..., order]
    else:
        decoded = np.asarray(Image.open(io.BytesIO(sent)))
    np.testing.assert_array_equal(decoded.reshape(shape), pixels[::-1])


def test_gray_with_alpha_is_sent_as_png(client: Client) -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(3, 4, 2)
    image = Image.open(io.BytesIO(client.colorize(pixels).data))
    assert image.mode == "LA"
    np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1", "P", "CMYK", "YCbCr", "I;16"])
def test_pillow_images_are_sent_as_png(client: Client, mode: str) -> None:
    with Image.open(PHOTO) as photo:
        gray = photo.convert("L")
    image = (
        gray.convert("I").point(lambda v: v * 256).convert("I;16")
        if mode == "I;16"
        else (gray.convert(mode))
    )
    sent = Image.open(io.BytesIO(client.colorize(image).data))
    assert (sent.format, sent.size) == ("PNG", image.size)
    if mode != "1":
        reduced = (
            np.asarray(sent, np.float32) / 256
            if mode == "I;16"
            else np.asarray(sent.convert("L"), np.float32)
        )
        assert np.abs(reduced - np.asarray(gray, np.float32)).max() <= 3


@pytest.mark.parametrize(
    "source",
    [3.5, None, [1, 2], object(), np.zeros((4, 4)), np.zeros((4, 4), bool), np.zeros((0, 4), "u1"),
     np.zeros((4, 4, 5), np.uint8), np.zeros((2, 2, 2, 3), np.uint8), {"a": 1}],
    ids=lambda source: f"{type(source).__name__} {getattr(source, 'shape', '')}",
)  # fmt: skip
def test_unsupported_type_is_a_type_error_that_lists_the_supported_ones(
    client: Client, scripted: ScriptedServer, source: Any
) -> None:
    with pytest.raises(TypeError, match=r"a path, an encoded image .*Pillow image.*uint8"):
        client.colorize(source)
    assert not scripted.requests


def test_single_photograph_for_colorize_many_is_a_type_error(scripted: ScriptedServer) -> None:
    for client in (Client(scripted.grpc_url), AsyncClient(scripted.grpc_url)):
        with pytest.raises(TypeError, match="single photograph"):
            client.colorize_many("photo.jpg")


def test_truncated_pillow_image_is_a_source_error(client: Client) -> None:
    image = Image.open(io.BytesIO(DATA[: len(DATA) // 2]))
    with pytest.raises(SourceError, match="truncated"):
        client.colorize(image)


def test_text_file_is_a_type_error(client: Client, tmp_path: Path) -> None:
    with PHOTO.open(errors="replace") as file, pytest.raises(TypeError, match="binary mode"):
        client.colorize(file)  # type: ignore[arg-type]


class Broken:
    """A file-like object of the caller's that fails in its own way."""

    def read(self, size: int = -1) -> bytes:
        raise RuntimeError("the database is gone")


def test_one_bad_source_is_one_bad_result(scripted: ScriptedServer) -> None:
    closed = io.BytesIO()
    closed.close()
    bad = [3.5, None, "nowhere.jpg", Broken(), closed, (1, 2, 3), "a\0b"]
    for results in collect_both(scripted, [DATA, *bad, DATA]):
        assert sum(result.picture is not None for result in results) == 2
        errors = [result.error for result in results if result.error]
        assert [type(error) for error in errors] == [SourceError] * len(bad)
        assert "the database is gone" in {str(error) for error in errors}


def test_pairs_return_their_key(scripted: ScriptedServer) -> None:
    photos = {"a": b"photo a", ("b", 2): b"photo b", None: b"photo c", "bad": 3.5}
    for results in collect_both(scripted, list(photos.items())):
        assert {result.key: result.picture and result.picture.data for result in results} == (
            photos | {"bad": None}
        )


def test_large_file_is_refused_before_it_is_read(client: Client, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(1500 * 1024**2)
    start = time.monotonic()
    with pytest.raises(ImageTooLarge, match=r"large\.png has 1,572,864,000 bytes; the limit is"):
        client.colorize(large)
    assert time.monotonic() - start < 0.1


def test_limit_holds_for_every_kind_of_source(scripted: ScriptedServer) -> None:
    with Client(scripted.grpc_url, max_bytes=len(DATA)) as client:
        assert client.colorize(PHOTO).data == DATA
        for source in (DATA + b"x", io.BytesIO(DATA + b"x"), np.frombuffer(DATA + b"x", "u1")):
            with pytest.raises(ImageTooLarge):
                client.colorize(source)


class Counting(io.BytesIO):
    """Counts the bytes read from it."""

    total = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.total += len(data)
        return data


def test_endless_file_is_read_to_the_limit_only(scripted: ScriptedServer) -> None:
    file = Counting(bytes(10_000))
    with Client(scripted.grpc_url, max_bytes=1000) as client, pytest.raises(ImageTooLarge):
        client.colorize(file)
    assert file.total == 1001


@pytest.mark.parametrize("folder", [True, False])
def test_unreadable_path_is_a_source_error(client: Client, tmp_path: Path, folder: bool) -> None:
    with pytest.raises(SourceError, match="cannot read"):
        client.colorize(tmp_path if folder else tmp_path / "missing.jpg")


BLOCKED = """
import sys
from rehue_client import {kind}
with {kind}(sys.argv[1]) as client:
    print("started", flush=True)
    list(client.colorize_many([sys.argv[2]] * 3))
"""
BLOCKED_ASYNC = """
import asyncio, sys
from rehue_client import AsyncClient
async def main():
    async with AsyncClient(sys.argv[1]) as client:
        print("started", flush=True)
        await client.colorize(sys.argv[2])
asyncio.run(main())
"""


@pytest.mark.parametrize("program", [BLOCKED.format(kind="Client"), BLOCKED_ASYNC])
def test_ctrl_c_ends_a_program_that_reads_a_pipe(
    scripted: ScriptedServer, tmp_path: Path, program: str
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    process = subprocess.Popen(
        [sys.executable, "-c", program, scripted.grpc_url, tmp_path / "pipe.png"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == b"started\n"  # type: ignore[union-attr]
        time.sleep(0.3)
        process.send_signal(2)
        assert process.wait(5) != 0
    finally:
        process.kill()
        process.communicate()
