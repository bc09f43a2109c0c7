"""The metadata of an answer: the photograph's own, corrected for the picture, and the mark."""

from dataclasses import replace
from functools import cache, lru_cache
from importlib.metadata import version

from PIL import ImageCms

from rehue_serve.decoding.pillow import open_with_pillow
from rehue_serve.errors import InvalidImage
from rehue_serve.images import Photograph
from rehue_serve.metadata.containers import Metadata
from rehue_serve.metadata.exif import update_exif
from rehue_serve.metadata.reading import read_metadata
from rehue_serve.metadata.xmp import build_packet, update_packet

_WITHOUT_PLACE = {"jpeg": ("text",), "webp": ("iptc", "text"), "tiff": ("text",)}  # by format


@cache
def _name_software() -> str:
    return f"Rehue {version('rehue')}"


@lru_cache(maxsize=1)
def _build_srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def complete_metadata(
    own: Metadata,
    width: int,
    height: int,
    model: str,
    edits: str = "",
    profile: bytes = b"",
    format: str = "png",
) -> Metadata:
    """Complete a photograph's metadata to that of the answer.

    Args:
        own: as `read_metadata_of` returns it; empty: the answer has the mark alone.
        width: of the upright answer, in pixels.
        height: likewise.
        model: name and version of the network.
        edits: digest of the person's choices; empty: there are none.
        profile: ICC profile of the answer's RGB; empty: sRGB.
        format: of the answer.

    Returns:
        What is written, and the names of what is not although the photograph has it.
    """
    if own == Metadata():
        return Metadata(xmp=build_packet(_name_software(), model, edits), profile=profile)
    exif = update_exif(own.exif, width, height, is_srgb=not profile) if own.exif else b""
    packet = update_packet(own.xmp, _name_software(), model, edits) if own.xmp else None
    lost = {
        "exif": own.exif and not exif,
        "xmp": own.xmp and not packet,
        **{name: getattr(own, name) for name in _WITHOUT_PLACE.get(format, ())},
    }
    return replace(
        own,
        profile=profile or own.profile,
        exif=exif,
        xmp=packet or build_packet(_name_software(), model, edits),
        dropped=tuple(sorted({*own.dropped, *(name for name, is_lost in lost.items() if is_lost)})),
    )


def read_metadata_of(photograph: Photograph) -> Metadata:
    """Read a photograph's metadata; with the profile of the answer if it has a profile."""
    image = photograph.image
    if image is None:
        try:
            image = open_with_pillow(photograph.data, "tiff")
        except InvalidImage:  # libvips reads more kinds of TIFF
            return Metadata()
    metadata = read_metadata(photograph.data, image)
    if image.info.get("icc_profile"):  # software that manages colors needs to know the color space
        metadata = replace(metadata, profile=_build_srgb_profile())
    return metadata
