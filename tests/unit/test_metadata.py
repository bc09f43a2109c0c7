"""What a photograph says of itself stays in the answer, and the answer says that it is colored."""

import io
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pillow_heif
import pytest
import tifffile
from paths import ROOT
from PIL import Image, ImageCms

from rehue_serve import images
from rehue_serve.decoding import jpeg
from rehue_serve.encoding.pictures import encode_pictures
from rehue_serve.metadata.answer import complete_metadata, read_metadata_of
from rehue_serve.metadata.containers import Metadata
from rehue_serve.metadata.exif import update_exif
from rehue_serve.metadata.reading import parse_exif, wrap_iptc
from rehue_serve.metadata.xmp import SOURCE_TYPE, update_packet

LIMITS = {"max_bytes": 50_000_000, "max_pixels": 50_000_000}
CAPTION = "Market, Cologne 1912"
IPTC_RECORD = b"\x1c\x02\x78\x00\x0ba caption!!"
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf='
    b'"http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
    b' xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"'
    b' tiff:Orientation="6"><dc:title><rdf:Alt><rdf:li xml:lang="x-default">Market</rdf:li>'
    b"</rdf:Alt></dc:title></rdf:Description></rdf:RDF></x:xmpmeta>"
)
PLACES = os.pathsep.join([os.environ["PATH"], str(ROOT / ".venv" / "exiftool")])
WRITTEN = ["jpeg", "png", "webp", "tiff"]


def build_exif(orientation: int = 6) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E], exif[0x0112], exif[0x8298] = CAPTION, orientation, "City archive"
    exif.get_ifd(0x8769).update({0x9003: "1912:05:01 10:00:00", 0xA001: 65535, 0xA002: 48})
    exif.get_ifd(0x8825).update({1: "N", 2: (50.0, 56.0, 0.0)})
    return exif


def write(format: str) -> bytes:
    """A gray photograph of 48 x 32 pixels that lies on its side, with everything it can hold."""
    picture, out = Image.new("L", (48, 32), 90), io.BytesIO()
    exif, profile = build_exif(), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    if format == "tiff":
        exif[700], exif[33723] = XMP, IPTC_RECORD
        picture.save(out, "TIFF", exif=exif, dpi=(600, 600))
        return out.getvalue()
    options: dict[str, Any] = {"exif": exif, "dpi": (600, 600), "xmp": XMP}
    if format == "png":
        del options["xmp"]
    picture.convert("RGB").save(out, format.upper(), icc_profile=profile.tobytes(), **options)
    if format == "jpeg":
        content = b"Photoshop 3.0\0" + wrap_iptc(IPTC_RECORD)
        segment = b"\xff\xed" + struct.pack(">H", len(content) + 2) + content
        return out.getvalue()[:2] + segment + out.getvalue()[2:]
    return out.getvalue()


def answer(data: bytes, format: str, keep: str = "keep") -> bytes:
    """The file as the server answers it, with a gray picture in place of the colored one."""
    photograph = images.open_image(data, **LIMITS)
    height, width = images.decode_lightness(photograph).shape
    own = read_metadata_of(photograph) if keep == "keep" else Metadata()
    metadata = complete_metadata(own, width, height, "rehue/1")
    picture = np.full((height, width, 3), 90, images.choose_depth(photograph.header, format))
    return encode_pictures([picture], format, 92, metadata)


def read_xmp(data: bytes, format: str) -> ElementTree.Element:
    if format == "tiff":
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            packet = file.pages.first.tags[700].value
    else:
        packet = Image.open(io.BytesIO(data)).info["xmp"]
    return ElementTree.fromstring(packet)


def find_property(root: ElementTree.Element, name: str) -> str | None:
    found = root.find(f".//{{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}}{name}")
    return found.text if found is not None else None


def run_exiftool(path: Path, *options: str) -> str:
    exiftool = shutil.which("exiftool", path=PLACES)
    if exiftool is None:
        pytest.skip("exiftool is missing: `make test` fetches Debian's")
    command = [exiftool, *options, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


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


LONG = "depth " * 40_000  # 240 KB, as maps of the depth in phones' files
MANY = "".join(f'<xmp:Label{n} xmlns:xmp="a:b/">{n:090}</xmp:Label{n}>' for n in range(1000))


def add_to_packet(attribute: str = "", elements: str = "") -> bytes:
    packet = XMP.replace(b' tiff:Orientation="6"', f' tiff:Make="{attribute}"'.encode())
    return packet.replace(b"<dc:title>", elements.encode() + b"<dc:title>")


@pytest.mark.parametrize(
    "packet",
    [
        XMP.replace(b"Market", f"Market {LONG}".encode()),
        add_to_packet(attribute=LONG),
        add_to_packet(elements=MANY),
    ],
    ids=["caption", "attribute", "many"],
)
def test_a_packet_over_64_kb_is_kept_in_a_jpeg(packet: bytes, tmp_path: Path) -> None:
    metadata = complete_metadata(Metadata(xmp=packet), 8, 8, "rehue/1")
    picture = np.zeros((8, 8, 3), np.uint8)
    data = encode_pictures([picture], "jpeg", 92, metadata)
    segments = [content for _, content, _ in jpeg.iterate_segments(data)]
    standard, *parts = [content for content in segments if b"ns.adobe.com/x" in content[:40]]
    assert SOURCE_TYPE.encode() in standard
    assert all(part.startswith(b"http://ns.adobe.com/xmp/extension/\0") for part in parts)
    assert len(parts) == (3 if b"Label" in packet else 4)
    # It comes back from the JPEG, and stands in one piece in a PNG.
    again = answer(data, "png")
    root = read_xmp(again, "png")
    assert find_property(root, "DigitalSourceType") == SOURCE_TYPE
    found = ElementTree.tostring(root, "unicode")
    assert found.count("Label") == packet.count(b"Label")
    assert found.count("depth ") == packet.count(b"depth ")
    assert "HasExtendedXMP" not in found
    (tmp_path / "answer.jpg").write_bytes(data)
    assert "Market" in run_exiftool(tmp_path / "answer.jpg", "-XMP-dc:Title")


def test_a_broken_extended_packet_never_costs_the_picture() -> None:
    metadata = complete_metadata(Metadata(xmp=add_to_packet(LONG)), 8, 8, "rehue/1")
    data = encode_pictures([np.zeros((8, 8, 3), np.uint8)], "jpeg", 92, metadata)
    place = data.rindex(b"depth depth")
    root = read_xmp(answer(data[:place] + b"DEPTH" + data[place + 5 :], "png"), "png")
    assert find_property(root, "DigitalSourceType") == SOURCE_TYPE
    assert "depth " not in ElementTree.tostring(root, "unicode")


@pytest.mark.parametrize("format", WRITTEN)
def test_exif_over_64_kb_is_kept(format: str, tmp_path: Path) -> None:
    """In a JPEG in several segments, which Pillow and exiftool join."""
    exif = build_exif(1)
    exif.get_ifd(0x8769)[0x927C] = bytes(range(256)) * 800  # a maker note of 200 KB
    out = io.BytesIO()
    Image.new("RGB", (48, 32)).save(out, "PNG", exif=exif)
    data = answer(answer(out.getvalue(), format), format)
    found = Image.open(io.BytesIO(data)).getexif()
    assert found[0x010E] == CAPTION
    assert found.get_ifd(0x8769)[0x927C] == bytes(range(256)) * 800
    path = tmp_path / f"answer.{format}"
    path.write_bytes(data)
    assert CAPTION in run_exiftool(path, "-ImageDescription")


def test_iptc_over_64_kb_is_kept_in_a_jpeg() -> None:
    resources = wrap_iptc(IPTC_RECORD) + b"8BIM\x04\x25\0\0\0\2\0\0" + bytes(131_072)
    metadata = Metadata(iptc=resources)
    data = encode_pictures([np.zeros((8, 8, 3), np.uint8)], "jpeg", 92, metadata)
    opened = images.open_image(data, **LIMITS)
    assert read_metadata_of(opened).iptc == resources


@pytest.mark.parametrize(
    "packet",
    [
        b"not xml",
        b"<rdf/>",
        XMP[:200],
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>' + XMP,
        ('<!DOCTYPE x [<!ENTITY a "b">]>' + XMP.decode()).encode("utf-16"),
        b"<a>" * 100_000,
    ],
)  # fmt: skip
def test_a_broken_or_hostile_packet_is_replaced(packet: bytes) -> None:
    root = ElementTree.fromstring(update_packet(packet, "Rehue 1", "rehue/1"))
    assert find_property(root, "DigitalSourceType") == SOURCE_TYPE


@pytest.mark.parametrize("format", ["HEIF", "AVIF", "JPEG2000", "GIF"])
def test_formats_that_are_only_read_are_marked_too(format: str) -> None:
    pillow_heif.register_heif_opener()
    out = io.BytesIO()
    Image.new("RGB", (32, 32), (90, 90, 90)).save(out, format)
    assert find_property(read_xmp(answer(out.getvalue(), "jpeg"), "jpeg"), "DigitalSourceType")


def test_a_mark_is_not_added_twice() -> None:
    once = update_packet(XMP, "Rehue 1", "rehue/1")
    twice = update_packet(once, "Rehue 1", "rehue/2")
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


def test_a_real_photograph_pays_a_copy_of_its_file_alone() -> None:
    """The mark adds its packet and nothing else to a photograph without metadata."""
    picture = np.full((40, 60, 3), 90, np.uint8)
    bare = encode_pictures([picture], "jpeg", 92)
    marked = encode_pictures(
        [picture], "jpeg", 92, complete_metadata(Metadata(), 60, 40, "rehue/1")
    )
    assert 0 < len(marked) - len(bare) < 1500
