"""Read the photograph from the body of an HTTP request."""

from collections.abc import MutableMapping
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from rehue_serve import images
from rehue_serve.errors import InvalidImage

FORM_OVERHEAD = 64 * 1024  # bytes that a form may have besides the photograph


async def read_photograph(request: Request, max_bytes: int) -> bytes:
    """Read the encoded photograph; stop reading at the limit.

    Args:
        request: its body is the file itself, or a form with the file in field ``image``.
        max_bytes: limit of the file.

    Raises:
        InvalidImage: the form is malformed or has no file.
        ImageTooLarge: the file is over the limit.
        ClientDisconnect: the caller disconnected.
    """
    declared = request.headers.get("content-length", "")
    content_type = request.headers.get("content-type", "").lower()
    is_form = content_type.startswith("multipart/form-data")
    limit = max_bytes + (FORM_OVERHEAD if is_form else 0)
    if declared.isdigit():
        images.check_byte_limit(int(declared), limit)
    if is_form:
        return await _read_form(request, limit, max_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        images.check_byte_limit(len(body), limit)
    return bytes(body)


async def _read_form(request: Request, limit: int, max_bytes: int) -> bytes:
    received = 0
    receive = request.receive

    async def receive_within_limit() -> MutableMapping[str, Any]:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        images.check_byte_limit(received, limit)
        return message

    limited = Request(request.scope, receive_within_limit)
    try:
        async with limited.form(max_files=1, max_fields=10) as form:
            image = form.get("image")
            data = await image.read() if isinstance(image, UploadFile) else b""
    except (MultiPartException, HTTPException) as error:
        raise InvalidImage(f"The form cannot be read: {_get_detail(error)}") from None
    if not data:
        raise InvalidImage("The form has no file in its field 'image'.")
    images.check_byte_limit(len(data), max_bytes)
    return data


def _get_detail(error: MultiPartException | HTTPException) -> str:
    return str(error.detail if isinstance(error, HTTPException) else error.message)
