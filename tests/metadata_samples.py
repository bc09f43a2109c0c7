"""Photographs with all metadata that their format holds, and readers of it."""

import io
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from paths import ROOT
from PIL import Image, ImageCms

from rehue_serve import images
from rehue_serve.encoding.pictures import encode_pictures
from rehue_serve.metadata.answer import complete_metadata, read_metadata_of
from rehue_serve.metadata.containers import Metadata
from rehue_serve.metadata.reading import wrap_iptc

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
WRITTEN = ["jpeg", "png", "webp", "tiff"]  # formats of answers


def build_exif(orientation: int = 6) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E], exif[0x0112], exif[0x8298] = CAPTION, orientation, "City archive"
    exif.get_ifd(0x8769).update({0x9003: "1912:05:01 10:00:00", 0xA001: 65535, 0xA002: 48})
    exif.get_ifd(0x8825).update({1: "N", 2: (50.0, 56.0, 0.0)})
    return exif


def write(format: str) -> bytes:
    """Return a gray photograph of 48 x 32 pixels on its side, with all metadata of the format."""
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
    """Return the server's answer to a file, with a gray picture in place of the colorized one."""
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
