"""Read the photograph from the body of an HTTP request."""

from collections.abc import MutableMapping
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from rehue_serve import images
from rehue_serve.errors import InvalidImage
from rehue_serve.uploads import Upload

FORM_OVERHEAD = 64 * 1024  # bytes that a form may have besides the photograph


async def read_photograph(request: Request, upload: Upload, max_bytes: int) -> bytes:
    """Read the encoded photograph; stop reading at the limit.

    Args:
        request: its body is the file itself, or a form with the file in field ``image``.
        upload: counts the bytes.
        max_bytes: limit of the file.

    Raises:
        InvalidImage: the form is malformed or has no file.
        ImageTooLarge: the file is over the limit.
        Overloaded: there is no memory for the body.
        ClientDisconnect: the caller disconnected.
    """
    declared = request.headers.get("content-length", "")
    content_type = request.headers.get("content-type", "").lower()
    is_form = content_type.startswith("multipart/form-data")
    limit = max_bytes + (FORM_OVERHEAD if is_form else 0)
    if declared.isdigit():
        images.check_byte_limit(int(declared), limit)
    limited = _LimitedRequest(request, upload, limit)
    if is_form:
        return await _read_form(limited, max_bytes)
    return await limited.body()


class _LimitedRequest(Request):
    """A request that counts its body's bytes and refuses more than the limit."""

    def __init__(self, request: Request, upload: Upload, limit: int) -> None:
        super().__init__(request.scope, self._receive_counted)
        self._receive_from_server = request.receive
        self._upload = upload
        self._limit = limit

    async def _receive_counted(self) -> MutableMapping[str, Any]:
        message = await self._receive_from_server()
        self._upload.add(len(message.get("body", b"")))
        images.check_byte_limit(self._upload.size, self._limit)
        return message


async def _read_form(request: Request, max_bytes: int) -> bytes:
    try:
        async with request.form(max_files=1, max_fields=10) as form:
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
