"""The XMP packet of an answer: the photograph's own, and the mark that a network colored it.

XMP is RDF in XML (ISO 16684-1). The mark is IPTC's Digital Source Type, the property that
photo desks, archives and search engines read.
"""

from functools import lru_cache
from xml.etree import ElementTree

import defusedxml
import defusedxml.ElementTree

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
IPTC_EXTENSION = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
REHUE = "urn:rehue:1.0:"
TIFF, XMP = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/xap/1.0/"
EXIF = "http://ns.adobe.com/exif/1.0/"

# cv.iptc.org/newscodes/digitalsourcetype: a real photograph, changed by a trained network.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
# A larger packet, or one of more elements and attributes, costs more to parse than a picture to
# color. Phones store maps of the depth in packets of some megabytes.
LARGEST_PACKET = 16 << 20  # bytes
_MOST_MARKS = 50_000  # of `<` and `=`
_MOST_LEVELS = 100  # of elements in elements; they are written by a recursive function

_REPLACED = {
    f"{{{IPTC_EXTENSION}}}DigitalSourceType", f"{{{IPTC_EXTENSION}}}digitalsourcetype",
    f"{{{TIFF}}}Orientation", f"{{{TIFF}}}ImageWidth", f"{{{TIFF}}}ImageLength",
    f"{{{EXIF}}}PixelXDimension", f"{{{EXIF}}}PixelYDimension", f"{{{EXIF}}}ColorSpace",
    f"{{{XMP}}}Thumbnails", f"{{{REHUE}}}Edits",
}  # fmt: skip

_BEGIN = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>'
_END = b'<?xpacket end="w"?>'

# ElementTree numbers the prefixes that it does not know: valid, but not what people know.
_PREFIXES = {
    "rdf": RDF,
    "x": "adobe:ns:meta/",
    "rehue": REHUE,
    "tiff": TIFF,
    "exif": EXIF,
    "xmp": XMP,
    "Iptc4xmpExt": IPTC_EXTENSION,
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
    "stRef": "http://ns.adobe.com/xap/1.0/sType/ResourceRef#",
    "stEvt": "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#",
    "exifEX": "http://cipa.jp/exif/1.0/",
    "aux": "http://ns.adobe.com/exif/1.0/aux/",
    "crs": "http://ns.adobe.com/camera-raw-settings/1.0/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "plus": "http://ns.useplus.org/ldf/xmp/1.0/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
}
for _prefix, _name in _PREFIXES.items():
    ElementTree.register_namespace(_prefix, _name)


@lru_cache(maxsize=64)
def build_packet(software: str, model: str, edits: str = "") -> bytes:
    """Build the packet of a picture that had none."""
    root = ElementTree.Element("{adobe:ns:meta/}xmpmeta")
    ElementTree.SubElement(root, f"{{{RDF}}}RDF")
    _add_mark(root, software, model, edits)
    return serialize_packet(root)


def update_packet(packet: bytes, software: str, model: str, edits: str = "") -> bytes | None:
    """Put the mark into a photograph's packet and drop what is no longer true.

    Args:
        packet: of the photograph.
        software: name and version of this program.
        model: name and version of the network.
        edits: digest of the person's choices; empty: there are none.

    Returns:
        The packet; None if it is broken, too large or declares entities.
    """
    root = parse_packet(packet)
    if root is None or find_rdf(root) is None:
        return None
    for description in root.iter(f"{{{RDF}}}Description"):
        for name in _REPLACED.intersection(description.keys()):
            del description.attrib[name]
        for child in [child for child in description if child.tag in _REPLACED]:
            description.remove(child)
    _add_mark(root, software, model, edits)
    return serialize_packet(root)


def parse_packet(packet: bytes) -> ElementTree.Element | None:
    """Parse a packet; None if it is empty, broken, too large or deep, or declares entities."""
    packet = packet.strip(b"\0 \r\n\t")
    is_small = len(packet) <= LARGEST_PACKET
    if not packet or not is_small or packet.count(b"<") + packet.count(b"=") > _MOST_MARKS:
        return None
    try:
        root: ElementTree.Element = defusedxml.ElementTree.fromstring(packet)
    except (ElementTree.ParseError, defusedxml.DefusedXmlException, ValueError, LookupError):
        return None
    return None if _has_more_levels(root, _MOST_LEVELS) else root


def _has_more_levels(root: ElementTree.Element, most: int) -> bool:
    level = [root]
    for _ in range(most):
        level = [child for element in level for child in element]
    return bool(level)


def find_rdf(root: ElementTree.Element) -> ElementTree.Element | None:
    """Find the element that holds the descriptions."""
    return root if root.tag == f"{{{RDF}}}RDF" else root.find(f".//{{{RDF}}}RDF")


def _add_mark(root: ElementTree.Element, software: str, model: str, edits: str) -> None:
    parent = find_rdf(root)
    assert parent is not None
    mark = ElementTree.SubElement(parent, f"{{{RDF}}}Description", {f"{{{RDF}}}about": ""})
    ElementTree.SubElement(mark, f"{{{IPTC_EXTENSION}}}DigitalSourceType").text = SOURCE_TYPE
    ElementTree.SubElement(mark, f"{{{REHUE}}}Software").text = software
    ElementTree.SubElement(mark, f"{{{REHUE}}}Model").text = model
    if edits:
        ElementTree.SubElement(mark, f"{{{REHUE}}}Edits").text = f"sha256:{edits}"


def serialize_packet(root: ElementTree.Element) -> bytes:
    """Serialize a packet with its wrapper."""
    content: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=False)
    return _BEGIN + content + _END
