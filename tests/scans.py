"""Photographs of one gray scene, written in every way that archives and phones store them."""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pillow_heif
import tifffile
from icc import ADOBE_RGB, build_cmyk_profile, build_gray_profile
from numpy.typing import NDArray
from PIL import Image

pillow_heif.register_heif_opener()

ROWS, COLUMNS = np.mgrid[0:60, 0:96]
GRAY = np.where(
    ROWS < 12, np.where(COLUMNS // 12 % 2, 200, 60), 40 + COLUMNS * 180 // 95
).astype(np.uint8)  # fmt: skip
DEEP = GRAY.astype(np.uint16) * 257
RGB = np.dstack([GRAY] * 3)
HALF = np.where(ROWS < 30, 255, 128).astype(np.uint8)  # an alpha


def compute_lightness(light: Any) -> NDArray[Any]:
    """CIE L* of linear light (0..1)."""
    return np.where(light > 0.008856, 116 * np.cbrt(light) - 16, 903.3 * light)


def linearize(value: NDArray[Any]) -> NDArray[Any]:
    """Linear light of sRGB values (0..1)."""
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


SEEN = compute_lightness(linearize(GRAY / 255))
INVERTED = compute_lightness(linearize(1 - GRAY / 255))
DARKER = compute_lightness((GRAY / 255) ** 3.0)  # where the values are a power of 3


@dataclass(frozen=True)
class Scan:
    """A file, and what its answer has to be.

    Attributes:
        file: name, with the suffix of its kind.
        seen: L of each answered page, HW.
        format: of the answer.
        bits: of a sample of the answer.
        alpha: of the answer, or None.
        tolerance: mean difference of L: what lossy files lose.
    """

    file: str
    data: bytes
    seen: tuple[NDArray[Any], ...] = (SEEN,)
    format: str = "TIFF"
    bits: int = 8
    alpha: NDArray[Any] | None = None
    tolerance: float = 0.6


def save(picture: Any, format: str, **options: Any) -> bytes:
    """Encode an array or a picture with Pillow."""
    out = io.BytesIO()
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(out, format, **options)
    return out.getvalue()


def write_tiff(*pages: NDArray[Any], preview: bool = False, **options: Any) -> bytes:
    """Encode pages with tifffile."""
    out = io.BytesIO()
    options = {"photometric": "minisblack", "metadata": None} | options
    with tifffile.TiffWriter(out, bigtiff=options.pop("bigtiff", False)) as writer:
        if preview:
            writer.write(GRAY[::4, ::4], photometric="minisblack", subfiletype=1, metadata=None)
        for page in pages:
            writer.write(page, **options)
    return out.getvalue()


def add_png_chunk(data: bytes, name: bytes, content: bytes) -> bytes:
    """Insert a chunk before the pixels of a PNG."""
    crc = struct.pack(">I", zlib.crc32(name + content))
    place = data.index(b"IDAT") - 4
    return data[:place] + struct.pack(">I4s", len(content), name) + content + crc + data[place:]


def _press(ink: Any) -> Any:
    """L of a press whose black darkens by nine tenths, and whose other inks are not used."""
    return 100 * (1 - 0.9 * ink / 255)


def _list_jpegs() -> list[Scan]:
    inks = np.dstack([np.zeros_like(GRAY)] * 3 + [255 - GRAY])
    k = np.mgrid[0:2, 0:2, 0:2, 0:2][3]
    press = build_cmyk_profile(_press(255.0 * k))
    jpeg = save(GRAY, "JPEG", quality=97)
    power = build_gray_profile(lambda value: value**3.0)
    second = Image.new("RGB", (20, 20))
    options: dict[str, Any] = {"format": "JPEG", "tolerance": 1.0}
    return [
        Scan("gray.jpg", jpeg, **options),
        Scan("no-end.jpg", jpeg[:-2], **options),
        Scan("phone.jpg", save(
            RGB, "MPO", save_all=True, append_images=[second], quality=97
        ), **options),
        Scan("power.jpg", save(GRAY, "JPEG", quality=97, icc_profile=power), (DARKER,), **options),
        Scan("wide.jpg", save(RGB, "JPEG", quality=97, icc_profile=ADOBE_RGB), (
            compute_lightness((GRAY / 255) ** 2.2),
        ), **options),
        Scan("press.jpg", save(
            Image.fromarray(inks, "CMYK"), "JPEG", quality=97, icc_profile=press
        ), (_press(255.0 - GRAY),), **options),
        Scan("sideways.jpg", save(GRAY, "JPEG", quality=97, exif=_turn()), (
            np.rot90(SEEN, -1),
        ), **options),
        Scan("phone.heic", save(RGB, "HEIF", quality=95), **options),
        Scan("web.avif", save(RGB, "AVIF", quality=95), **options),
        Scan("archive.jp2", save(RGB, "JPEG2000"), **options),
    ]  # fmt: skip


def _turn() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _list_pngs() -> list[Scan]:
    keyed = RGB.copy()
    keyed[20:40, 20:40] = (1, 2, 3)
    hole = np.full_like(GRAY, 255)
    hole[20:40, 20:40] = 0
    frames = [Image.fromarray(255 - GRAY)]
    png: dict[str, Any] = {"format": "PNG"}
    return [
        Scan("deep.png", save(Image.fromarray(DEEP), "PNG"), bits=16, **png),
        Scan("power.png", add_png_chunk(
            save(GRAY, "PNG"), b"gAMA", struct.pack(">I", round(100_000 / 3))
        ), (DARKER,), **png),
        Scan("keyed.png", save(keyed, "PNG", transparency=(1, 2, 3)), alpha=hole, **png),
        Scan("alpha.png", save(np.dstack([RGB, HALF]), "PNG"), alpha=HALF, **png),
        Scan("moving.gif", save(GRAY, "GIF", save_all=True, append_images=frames), **png),
        Scan("web.webp", save(RGB, "WEBP", quality=97), format="WEBP", tolerance=1.5),
    ]  # fmt: skip


def _list_tiffs() -> list[Scan]:
    bits = GRAY > 128
    table = np.stack([np.arange(256)] * 3).astype(np.uint16)  # of 8-bit numbers
    lab = [
        Image.fromarray(np.rint(SEEN * 2.55).astype(np.uint8)),
        *[Image.new("L", (96, 60), 128)] * 2,
    ]
    deep: dict[str, Any] = {"bits": 16}
    planes: dict[str, Any] = {"photometric": "rgb", "planarconfig": "separate"}
    twelve, largest = (DEEP >> 4), [(281, 3, 1, 4095, True)]
    return [
        Scan("deep.tif", write_tiff(DEEP), **deep),
        Scan("negative.tif", write_tiff(65535 - DEEP, photometric="miniswhite"), **deep),
        Scan("planar.tif", write_tiff(np.stack([DEEP] * 3), **planes), **deep),
        Scan("twelve.tif", write_tiff(twelve, extratags=largest), **deep),
        Scan("float.tif", write_tiff((GRAY / 255).astype(np.float32)), **deep),
        Scan("long.tif", write_tiff(GRAY.astype(np.uint32) * 0x01010101), **deep),
        Scan("big.tif", write_tiff(DEEP, bigtiff=True), **deep),
        Scan("tiled.tif", write_tiff(DEEP, tile=(16, 16)), **deep),
        Scan("zip.tif", write_tiff(DEEP, compression="zlib", predictor=True), **deep),
        Scan("lzw.tif", save(GRAY, "TIFF", compression="tiff_lzw")),
        Scan("jpeg.tif", save(GRAY, "TIFF", compression="jpeg", quality=97), tolerance=1.0),
        Scan("fax.tif", save(Image.fromarray(bits), "TIFF", compression="group4"), (
            np.where(bits, 100.0, 0.0),
        )),
        Scan("table.tif", write_tiff(GRAY, photometric="palette", colormap=table)),
        Scan("turned.tif", write_tiff(GRAY, extratags=[(274, 1, 1, 6, True)]), (
            np.rot90(SEEN, -1),
        )),
        Scan("alpha.tif", save(Image.fromarray(np.dstack([GRAY, HALF]), "LA"), "TIFF"), alpha=HALF),
        Scan("lab.tif", save(Image.merge("LAB", lab), "TIFF")),
        Scan("pages.tif", write_tiff(DEEP, 65535 - DEEP, preview=True), (SEEN, INVERTED), **deep),
    ]  # fmt: skip


def list_scans() -> list[Scan]:
    """List a file of each kind that the server reads."""
    return [*_list_jpegs(), *_list_pngs(), *_list_tiffs()]


# Files that cannot be read correctly, and the words with which they are refused.
REFUSED = {
    "signed.tif": (write_tiff(GRAY.astype(np.int16)), "signed"),
    "bright.tif": (write_tiff(GRAY.astype(np.float32)), "floating-point"),
    "raw.tif": (write_tiff(GRAY, extratags=[(50706, 1, 4, bytes((1, 4, 0, 0)), True)]), "DNG"),
    "layers.png": (b"8BPS\0\1" + bytes(40), "Photoshop"),
    "drawing.png": (b'<?xml version="1.0"?>\n<svg xmlns="x"/>', "SVG"),
    "plain.png": (b"P5 2 2 255\n" + bytes(4), "Netpbm"),
}
