"""A photograph's metadata stays in the answer, which is marked as colorized."""

import io
import struct
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pillow_heif
import pytest
import tifffile
from metadata_samples import (
    CAPTION,
    IPTC_RECORD,
    LIMITS,
    WRITTEN,
    XMP,
    answer,
    build_exif,
    find_property,
    read_xmp,
    run_exiftool,
    write,
)
from PIL import Image, ImageCms

from rehue_serve import images
from rehue_serve.encoding.pictures import encode_pictures
from rehue_serve.metadata.answer import complete_metadata, read_metadata_of
from rehue_serve.metadata.containers import Metadata
from rehue_serve.metadata.exif import update_exif
from rehue_serve.metadata.reading import parse_exif
from rehue_serve.metadata.xmp import SOURCE_TYPE, update_packet


@pytest.mark.parametrize("format", WRITTEN)
@pytest.mark.parametrize("source", WRITTEN)
def test_exif_is_kept_and_made_true(source: str, format: str) -> None:
    data = write(source)
    if source == "tiff":  # Pillow writes no EXIF directory into a TIFF; the server does
        data = answer(write("jpeg"), "tiff")
    image = Image.open(io.BytesIO(answer(data, format)))
    assert image.size == (32, 48)  # turned upright
    exif = image.getexif()
    assert exif[0x010E] == CAPTION
    assert exif[0x8298] == "City archive"
    assert exif.get(0x0112, 1) == 1
    assert exif.get_ifd(0x8769)[0x9003] == "1912:05:01 10:00:00"
    assert exif.get_ifd(0x8769)[0xA001] == 1
    assert exif.get_ifd(0x8769)[0xA002] == 32
    assert exif.get_ifd(0x8825)[1] == "N"


@pytest.mark.parametrize("format", WRITTEN)
@pytest.mark.parametrize("source", ["jpeg", "webp", "tiff"])
def test_xmp_is_kept_and_marked(source: str, format: str) -> None:
    root = read_xmp(answer(write(source), format), format)
    assert "Market" in "".join(root.itertext())
    assert find_property(root, "DigitalSourceType") == SOURCE_TYPE
    assert "Orientation" not in ElementTree.tostring(root, "unicode")


@pytest.mark.parametrize("format", WRITTEN)
def test_every_answer_is_marked(photo: bytes, format: str) -> None:
    text = ElementTree.tostring(read_xmp(answer(photo, format), format), "unicode")
    assert SOURCE_TYPE in text
    assert "rehue/1" in text
    assert "Rehue 0" in text


@pytest.mark.parametrize("format", WRITTEN)
def test_none_strips_all_but_the_mark(format: str) -> None:
    data = answer(write("jpeg"), format, keep="none")
    assert CAPTION.encode() not in data
    assert b"a caption!!" not in data
    assert SOURCE_TYPE in ElementTree.tostring(read_xmp(data, format), "unicode")


@pytest.mark.parametrize("format", ["jpeg", "png", "tiff"])
def test_resolution_is_kept(format: str) -> None:
    image = Image.open(io.BytesIO(answer(write("tiff"), format)))
    assert tuple(round(float(value)) for value in image.info["dpi"]) == (600, 600)


@pytest.mark.parametrize("format", ["jpeg", "png", "tiff"])
@pytest.mark.parametrize("source", ["jpeg", "tiff"])
def test_iptc_is_kept(source: str, format: str) -> None:
    photograph = images.open_image(answer(write(source), format), **LIMITS)
    assert IPTC_RECORD in read_metadata_of(photograph).iptc


def test_a_profiled_photograph_gets_the_profile_of_the_answer() -> None:
    image = Image.open(io.BytesIO(answer(write("jpeg"), "jpeg")))
    profile = ImageCms.getOpenProfile(io.BytesIO(image.info["icc_profile"]))
    assert "sRGB" in ImageCms.getProfileDescription(profile)


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_sixteen_bits_come_back(format: str) -> None:
    out = io.BytesIO()
    Image.fromarray(np.full((9, 9), 12345, np.uint16)).save(out, "PNG")
    data = answer(out.getvalue(), format)
    if format == "tiff":
        assert tifffile.imread(io.BytesIO(data)).dtype == np.uint16
    else:
        assert data[24] == 16  # IHDR's bit depth
    assert Image.open(io.BytesIO(answer(out.getvalue(), "jpeg"))).mode == "RGB"


def test_a_thumbnail_of_the_gray_photograph_is_dropped() -> None:
    thumbnail = b"\xff\xd8thumbnail of the gray photograph\xff\xd9"
    block = build_exif().tobytes().removeprefix(b"Exif\0\0")
    order = "<" if block[:2] == b"II" else ">"
    main = struct.unpack_from(order + "I", block, 4)[0]
    pointer = main + 2 + 12 * struct.unpack_from(order + "H", block, main)[0]
    place = len(block)
    entries = [(0x0201, 4, 1, place + 30), (0x0202, 4, 1, len(thumbnail))]
    directory = struct.pack(order + "H", 2)
    directory += b"".join(struct.pack(order + "HHII", *entry) for entry in entries)
    block = bytearray(block + directory.ljust(30, b"\0") + thumbnail)  # type: ignore[assignment]
    struct.pack_into(order + "I", block, pointer, place)
    updated = update_exif(bytes(block), 48, 32)
    assert b"thumbnail" not in updated
    assert parse_exif(updated)[0x010E] == CAPTION


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_broken_exif_never_costs_the_picture(cut: int) -> None:
    block = build_exif().tobytes()
    update_exif(block[:cut], 48, 32)
    update_exif(block[:cut] + b"\xff" * 40 + block[cut + 40 :], 48, 32)
    out = io.BytesIO()
    Image.new("L", (48, 32)).save(out, "JPEG", exif=block[: max(cut, 8)])
    answer(out.getvalue(), "jpeg")


@pytest.mark.parametrize("format", ["HEIF", "AVIF", "JPEG2000", "GIF"])
def test_formats_that_are_only_read_are_marked_too(format: str) -> None:
    pillow_heif.register_heif_opener()
    out = io.BytesIO()
    Image.new("RGB", (32, 32), (90, 90, 90)).save(out, format)
    assert find_property(read_xmp(answer(out.getvalue(), "jpeg"), "jpeg"), "DigitalSourceType")


def test_a_mark_is_not_added_twice() -> None:
    once = update_packet(XMP, "Rehue 1", "rehue/1")
    assert once
    twice = update_packet(once, "Rehue 1", "rehue/2")
    assert twice
    assert twice.count(b"DigitalSourceType>") == 2  # one element: its begin and its end


@pytest.mark.parametrize("format", WRITTEN)
def test_exiftool_reads_the_same_without_a_warning(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"answer.{format}"
    path.write_bytes(answer(answer(write("jpeg"), "tiff"), format))
    found = run_exiftool(
        path, "-validate", "-warning", "-error", "-a", "-ImageDescription", "-Title",
        "-DigitalSourceType", "-GPSLatitudeRef",
    )  # fmt: skip
    for words in (CAPTION, "Market", SOURCE_TYPE, "North"):
        assert words in found
    assert "Error" not in found


def test_the_mark_adds_only_its_packet_to_a_real_photograph() -> None:
    """The mark adds its packet and nothing else to a photograph without metadata."""
    picture = np.full((40, 60, 3), 90, np.uint8)
    bare = encode_pictures([picture], "jpeg", 92)
    marked = encode_pictures(
        [picture], "jpeg", 92, complete_metadata(Metadata(), 60, 40, "rehue/1")
    )
    assert 0 < len(marked) - len(bare) < 1500
