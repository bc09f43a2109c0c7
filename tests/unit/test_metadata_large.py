"""Metadata over 64 KB, which a JPEG holds in several segments, and packets that are hostile."""

import io
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
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
)
from PIL import Image

from rehue_serve import images
from rehue_serve.decoding import jpeg
from rehue_serve.encoding.pictures import encode_pictures
from rehue_serve.metadata.answer import complete_metadata, read_metadata_of
from rehue_serve.metadata.containers import Metadata
from rehue_serve.metadata.reading import wrap_iptc
from rehue_serve.metadata.xmp import SOURCE_TYPE

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


@pytest.mark.parametrize(
    ("own", "format", "dropped"),
    [
        (Metadata(exif=build_exif(1).tobytes(), xmp=XMP, iptc=b"8BIM"), "jpeg", ()),
        (Metadata(xmp=add_to_packet("depth" * (4 << 20))), "png", ("xmp",)),  # over 16 MiB
        (Metadata(exif=b"II*", xmp=XMP[:200]), "tiff", ("exif", "xmp")),
        (Metadata(iptc=b"8BIM", text={"Title": "a"}), "webp", ("iptc", "text")),
        (Metadata(iptc=b"8BIM", text={"Title": "a"}), "png", ()),
    ],
)
def test_what_is_not_kept_is_named(own: Metadata, format: str, dropped: tuple[str, ...]) -> None:
    assert complete_metadata(own, 8, 8, "rehue/1", format=format).dropped == dropped


def test_a_broken_extended_packet_never_costs_the_picture() -> None:
    metadata = complete_metadata(Metadata(xmp=add_to_packet(LONG)), 8, 8, "rehue/1")
    data = encode_pictures([np.zeros((8, 8, 3), np.uint8)], "jpeg", 92, metadata)
    place = data.rindex(b"depth depth")
    broken = data[:place] + b"DEPTH" + data[place + 5 :]
    root = read_xmp(answer(broken, "png"), "png")
    assert read_metadata_of(images.open_image(broken, **LIMITS)).dropped == ("xmp",)
    assert read_metadata_of(images.open_image(data, **LIMITS)).dropped == ()
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
    metadata = complete_metadata(Metadata(xmp=packet), 8, 8, "rehue/1")
    root = ElementTree.fromstring(metadata.xmp)
    assert metadata.dropped == ("xmp",)
    assert find_property(root, "DigitalSourceType") == SOURCE_TYPE
