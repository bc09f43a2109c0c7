"""Read the photograph, and the fields of a form, from the body of an HTTP request."""

import io
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.formparsers import MultiPartException, MultiPartParser

from rehue_serve import images
from rehue_serve.errors import InvalidImage, InvalidParameter, UnsupportedImage
from rehue_serve.uploads import Upload

FORM_OVERHEAD = 64 * 1024  # bytes that a form may have besides the photograph
MAX_FIELDS = 20
PHOTOGRAPH_FIELD, REFERENCE_FIELD = "image", "reference"


@dataclass
class Body:
    """What a request's body holds.

    Attributes:
        photograph: the encoded file.
        fields: the other fields of a form.
        reference: the encoded reference picture of a form; empty: there is none.
    """

    photograph: bytes
    fields: dict[str, str] = field(default_factory=dict)
    reference: bytes = b""

    def take_photograph(self) -> bytes:
        """Return the file and forget it, so that its last user frees it."""
        photograph, self.photograph = self.photograph, b""
        return photograph


async def read_body(request: Request, upload: Upload, max_bytes: int) -> Body:
    """Read the encoded photograph and the form's fields; stop reading at the limit.

    Args:
        request: its body is the file itself, or a form with the file in field ``image``.
        upload: counts the bytes.
        max_bytes: limit of the file.

    Raises:
        InvalidImage: the form is malformed or has no file.
        InvalidParameter: the form has other files.
        ImageTooLarge: the file is over the limit.
        UnsupportedImage: the body has a content encoding.
        Overloaded: there is no memory for the body.
        ClientDisconnect: the caller disconnected.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        # Image files are compressed already.
        raise UnsupportedImage(
            f"Content-Encoding {encoding[:40]} is not supported; send the file as it is."
        )
    declared = request.headers.get("content-length", "")
    content_type = request.headers.get("content-type", "").lower()
    is_form = content_type.startswith("multipart/form-data")
    limit = max_bytes + (FORM_OVERHEAD if is_form else 0)
    if declared.isdigit():
        images.check_byte_limit(int(declared), limit)
    limited = _LimitedRequest(request, upload, limit)
    if is_form:
        return await _read_form(limited, max_bytes)
    file = io.BytesIO()
    async for chunk in limited.stream():
        file.write(chunk)
    return Body(file.getvalue())  # without a copy


class _LimitedRequest(Request):
    """A request that counts its body's bytes and refuses more than the limit."""

    def __init__(self, request: Request, upload: Upload, limit: int) -> None:
        super().__init__(request.scope, self._receive_counted)
        self._receive_from_server = request.receive
        self._upload = upload
        self._limit = limit

    async def _receive_counted(self) -> MutableMapping[str, Any]:
        message = await self._receive_from_server()
        size = len(message.get("body", b""))
        images.check_byte_limit(self._upload.size + size, self._limit)
        self._upload.add(size)
        return message


class _FormParser(MultiPartParser):
    """Keeps files in memory, which is counted, and takes a name given as ``filename*`` alone."""

    spool_max_size = 2**40

    def on_headers_finished(self) -> None:
        disposition = self._current_part.content_disposition or b""
        _, options = parse_options_header(disposition)  # drops ``filename*``
        if b"filename*=" in disposition.lower() and b"filename" not in options:
            self._current_part.content_disposition = disposition + b'; filename="file"'
        super().on_headers_finished()


async def _read_form(request: Request, max_bytes: int) -> Body:
    parser = _FormParser(
        request.headers, request.stream(), max_files=MAX_FIELDS, max_fields=MAX_FIELDS
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidImage(f"The form cannot be read: {error.message}") from None
    try:
        files = [(name, part) for name, part in form.multi_items() if not isinstance(part, str)]
        photographs = [await part.read() for name, part in files if name == PHOTOGRAPH_FIELD]
        references = [await part.read() for name, part in files if name == REFERENCE_FIELD]
    finally:
        await form.close()
    if not any(photographs):
        raise InvalidImage(f"The form has no file in its field {PHOTOGRAPH_FIELD!r}.")
    if len(photographs) > 1 or len(references) > 1 or len(photographs + references) < len(files):
        names = ", ".join(name[:100] for name, _ in files)
        raise InvalidParameter(
            f"The form has several files, in its fields {names}; send one, in "
            f"{PHOTOGRAPH_FIELD!r}, and a reference picture, if you like, in {REFERENCE_FIELD!r}."
        )
    if references == [b""]:
        raise InvalidParameter(f"{REFERENCE_FIELD}: the file is empty.")
    images.check_byte_limit(len(photographs[0]), max_bytes)
    fields = {name: part for name, part in form.multi_items() if isinstance(part, str)}
    return Body(photographs[0], fields, b"".join(references))
