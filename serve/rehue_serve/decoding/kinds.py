"""Name the format of a file by its first bytes."""

import re

# ISO base media files state their brand behind `ftyp` (ISO 14496-12, 4.3).
_BRANDS = {
    b"avif": "avif", b"avis": "avif",
    b"heic": "heic", b"heix": "heic", b"hevc": "heic", b"hevx": "heic", b"heim": "heic",
    b"heis": "heic", b"mif1": "heic", b"msf1": "heic",
    b"crx ": "camera raw (CR3)",
}  # fmt: skip

_SIGNATURES = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF8": "gif",
    b"\0\0\0\x0cjP  ": "jp2",
    b"\xff\x4f\xff\x51": "jp2",
    # Cameras that change TIFF's own signature, so that no TIFF reader takes it for a picture.
    b"II*\0\x10\0\0\0CR": "camera raw (CR2)",
    b"FUJIFILMCCD-RAW": "camera raw (RAF)",
    b"IIRO": "camera raw (ORF)",
    b"IIRS": "camera raw (ORF)",
    b"MMOR": "camera raw (ORF)",
    b"IIU\0": "camera raw (RW2)",
    b"FOVb": "camera raw (X3F)",
    b"\0MRM": "camera raw (MRW)",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",  # BigTIFF
    b"MM\0+": "tiff",
    b"BM": "BMP",
    b"8BPS": "Photoshop (PSD)",
    b"\0\0\1\0": "ICO",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"AT&TFORM": "DjVu",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"SIMPLE  =": "FITS",
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "ZIP",
}

_NETPBM = re.compile(rb"P[1-7][\s#]")
_SVG = re.compile(
    rb"(<\?xml[^>]*\?>|<!--.*?-->|<!DOCTYPE[^>]*>|\s|\xef\xbb\xbf)*<svg[\s>]", re.DOTALL
)


def identify_format(data: bytes) -> str | None:
    """Name the format of an encoded image.

    Returns:
        A lower-case name (``jpeg``, ``png``, ``webp``, ``tiff``, ``heic``, ``avif``, ``jp2``,
        ``gif``) if the format is read; a name to show a person if it is known and not read;
        None if it is not known.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "video or another ISO media file")
    for signature, name in _SIGNATURES.items():
        if data.startswith(signature):
            return name
    if _NETPBM.match(data):
        return "Netpbm (PBM, PGM, PPM)"
    if _SVG.match(data[:4096]):
        return "SVG"
    return None
