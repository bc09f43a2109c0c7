"""XMP packets that are larger than a segment of JPEG (XMP specification, part 3, 1.1.3.1).

The standard packet names an extended one by the MD5 of its content, which further segments hold.
"""

import hashlib
import struct
from collections.abc import Iterable
from xml.etree import ElementTree

from defusedxml.ElementTree import fromstring

from rehue_serve.metadata.xmp import (
    IPTC_EXTENSION,
    LARGEST_PACKET,
    RDF,
    REHUE,
    find_rdf,
    parse_packet,
    serialize_packet,
)

SIGNATURE = b"http://ns.adobe.com/xmp/extension/\0"
_NOTE = "{http://ns.adobe.com/xmp/note/}HasExtendedXMP"
_MARGIN = 4096  # bytes: the note, and namespaces that are declared in both packets
_HEAD = struct.Struct(">32sII")  # MD5 of the whole, its length, where this part begins
_DESCRIPTION, _ABOUT = f"{{{RDF}}}Description", f"{{{RDF}}}about"
_XML = "{http://www.w3.org/XML/1998/namespace}"  # language and space
_STAY = (f"{{{REHUE}}}", f"{{{IPTC_EXTENSION}}}DigitalSourceType", f"{{{RDF}}}", _NOTE, _XML)


def join_packets(packet: bytes, segments: Iterable[bytes]) -> tuple[bytes, bool]:
    """Join a standard packet and its extended one.

    Args:
        packet: the standard one.
        segments: contents of the extended one's segments, behind `SIGNATURE`.

    Returns:
        One packet, and whether it has all; it is the standard one where the extended one is
        broken, too large or missing.
    """
    parts: dict[bytes, dict[int, bytes]] = {}
    for segment in segments:
        if len(segment) > _HEAD.size:
            name, _, place = _HEAD.unpack_from(segment)
            parts.setdefault(name, {})[place] = segment[_HEAD.size :]
    root = parse_packet(packet) if parts else None
    found = None if root is None else find_rdf(root)
    if root is None or found is None:
        return packet, not parts
    name = _take_note(found)
    extension = b"".join(part for _, part in sorted(parts.get(name, {}).items()))
    if _compute_name(extension) != name or len(extension) > LARGEST_PACKET:
        return packet, False
    added = parse_packet(extension)
    extended = None if added is None else find_rdf(added)
    if extended is None:
        return packet, False
    found.extend(list(extended))
    return serialize_packet(root), True


def split_packet(packet: bytes, largest: int) -> tuple[bytes, list[bytes]]:
    """Split a packet for JPEG: its largest properties go to an extended one, the mark never does.

    Args:
        packet: as `rehue_serve.metadata.xmp` writes it, larger than `largest`.
        largest: bytes of a standard packet, and of a part of the extended one with its head.

    Returns:
        The standard packet, and the parts with their heads. Where the standard one cannot be
        made small enough, it has the mark alone, and there are no parts.
    """
    root = fromstring(packet)
    found = find_rdf(root)
    assert found is not None  # it was written here
    mark = found[-1]
    extended = ElementTree.Element(f"{{{RDF}}}RDF")
    note = ElementTree.SubElement(found, _DESCRIPTION, {_ABOUT: "", _NOTE: "0" * 32})
    _move_properties(found, extended, len(packet) - largest + _MARGIN)
    standard = serialize_packet(root)
    if len(standard) > largest:  # of many small ones all
        _move_properties(found, extended, len(packet))
        standard = serialize_packet(root)
    if len(standard) > largest:  # of many empty ones
        found[:] = [mark]
        return serialize_packet(root), []
    content: bytes = ElementTree.tostring(extended, encoding="utf-8", xml_declaration=False)
    name = _compute_name(content)
    note.set(_NOTE, name.decode())
    size = largest - _HEAD.size
    return serialize_packet(root), [
        _HEAD.pack(name, len(content), place) + content[place : place + size]
        for place in range(0, len(content), size)
    ]


def _move_properties(source: ElementTree.Element, to: ElementTree.Element, least: int) -> None:
    """Move the largest properties, elements and attributes, of at least so many bytes together."""
    found = [
        (len(ElementTree.tostring(child)), description, child)
        for description in source.findall(_DESCRIPTION)
        for child in description
        if not child.tag.startswith(_STAY)
    ] + [
        (len(value), description, name)
        for description in source.findall(_DESCRIPTION)
        for name, value in description.items()
        if not name.startswith(_STAY)
    ]
    for size, description, held in sorted(found, key=lambda item: -item[0]):
        if least <= 0:
            return
        moved = ElementTree.SubElement(to, _DESCRIPTION, {_ABOUT: description.get(_ABOUT, "")})
        if isinstance(held, str):
            moved.set(held, description.attrib.pop(held))
        else:
            description.remove(held)
            moved.append(held)
        least -= size


def _compute_name(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).hexdigest().upper().encode()


def _take_note(rdf: ElementTree.Element) -> bytes:
    """Remove the name of the extended packet from a standard one, and return it."""
    for description in rdf.findall(_DESCRIPTION):
        name = description.attrib.pop(_NOTE, "")
        child = description.find(_NOTE)
        if child is not None:
            description.remove(child)
            name = (child.text or "").strip()
        if name:
            return name.encode()
    return b""
