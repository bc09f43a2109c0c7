"""HTTP: routes and what they answer. No arithmetic here."""

from collections.abc import MutableMapping
from importlib import resources
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from rehue_serve import images
from rehue_serve.errors import (
    HTTP_STATUS,
    Internal,
    InvalidImage,
    InvalidParameter,
    RehueError,
    problem,
)
from rehue_serve.requests import watched
from rehue_serve.service import DEFAULT_QUALITY, STAGES, Parameters, Service

PROBLEM = "application/problem+json"

Format = Literal["auto", "jpeg", "png", "webp", "tiff"]

_BODY = {
    "requestBody": {
        "required": True,
        "description": "The photograph: JPEG, PNG, WebP or TIFF.",
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}
_PROBLEM_BODY = {
    "content": {
        PROBLEM: {
            "schema": {
                "type": "object",
                "required": ["type", "title", "status", "detail", "request_id"],
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                    "request_id": {"type": "string"},
                },
            }
        }
    }
}
_PROBLEMS = {
    status.value: {"description": kind.title, **_PROBLEM_BODY}
    for kind, status in HTTP_STATUS.items()
}
_PICTURE = {
    200: {
        "description": "The photograph in colour.",
        "content": {media: {} for media in images.MEDIA_TYPES.values()},
    }
}


def build(service: Service) -> FastAPI:
    """The HTTP application of a service."""
    app = FastAPIOffline(  # closed networks reach no CDN
        title="Rehue",
        description="Colours for black-and-white photographs.",
        version="1",
        redoc_url=None,
        static_url="/docs/static",
    )
    app.add_exception_handler(RehueError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, _answer_fault)
    _add_colorize(app, service)
    _add_rest(app, service)
    return app


def _add_colorize(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/colorize",
        response_class=Response,
        openapi_extra=_BODY,
        responses={**_PICTURE, **_PROBLEMS},  # type: ignore[dict-item]
    )
    async def colorize(
        request: Request,
        model: Annotated[str, Query(description="Name of the model; empty: the default.")] = "",
        strength: Annotated[float, Query(ge=0, le=2, description="Scales chroma.")] = 1.0,
        format: Annotated[Format, Query(description="auto: as the input.")] = "auto",
        quality: Annotated[
            int, Query(ge=1, le=100, description="Of JPEG and WebP.")
        ] = DEFAULT_QUALITY,
    ) -> Response:
        """Colorizes one photograph; it keeps its size and its lightness."""
        with watched("http", "POST /v1/colorize", _id(request), lambda: request.headers) as noted:
            service.authenticate(request.headers.get("authorization"))
            async with service.admitted(_timeout(request)) as deadline:
                data = await _image(request, service.settings.max_bytes)
                noted.received = len(data)
                parameters = Parameters(model, strength, format, quality)
                picture = await service.colorize(data, parameters, deadline)
            noted.picture = picture
        timings = ", ".join(f"{stage};dur={picture.timings[stage]:.2f}" for stage in STAGES)
        return Response(
            picture.data,
            media_type=picture.media_type,
            headers={"X-Rehue-Model": picture.model, "Server-Timing": timings},
        )


def _add_rest(app: FastAPI, service: Service) -> None:
    page = resources.files("rehue_serve").joinpath("page.html").read_text()

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page)

    @app.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> str:
        """Alive."""
        return "ok"

    @app.get("/readyz", response_class=PlainTextResponse, responses={503: _PROBLEMS[503]})
    async def readyz() -> str:
        """Ready: a Triton serves the default model, and the server is not stopping."""
        if not service.ready:
            raise service.unavailable()
        return "ready"

    @app.get("/v1/models", responses={401: _PROBLEMS[401], 503: _PROBLEMS[503]})
    async def models(request: Request) -> dict[str, object]:
        """The models, their versions and state."""
        service.authenticate(request.headers.get("authorization"))
        return {"models": await service.triton.models.list_models()}


def _timeout(request: Request) -> float | None:
    given = request.headers.get("x-request-timeout")
    if given is None:
        return None
    try:
        timeout = float(given)
    except ValueError:
        timeout = 0.0
    if not 0 < timeout < float("inf"):
        raise InvalidParameter("X-Request-Timeout is a number of seconds above 0.")
    return timeout


async def _image(request: Request, max_bytes: int) -> bytes:
    """The photograph in the body, read no further than the limit."""
    declared = request.headers.get("content-length", "")
    multipart = request.headers.get("content-type", "").lower().startswith("multipart/form-data")
    # A form's own lines and headers come on top of the photograph.
    limit = max_bytes + (64 * 1024 if multipart else 0)
    if declared.isdigit():
        images.check_bytes(int(declared), limit)
    if multipart:
        return await _image_of_form(request, limit, max_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        images.check_bytes(len(body), limit)
    return bytes(body)


async def _image_of_form(request: Request, limit: int, max_bytes: int) -> bytes:
    taken = 0
    receive = request.receive

    async def counted() -> MutableMapping[str, Any]:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        images.check_bytes(taken, limit)
        return message

    counting = Request(request.scope, counted)
    try:
        async with counting.form(max_files=1, max_fields=10) as form:
            image = form.get("image")
            data = await image.read() if isinstance(image, UploadFile) else b""
    except (MultiPartException, HTTPException) as error:
        raise InvalidImage(f"The form cannot be read: {_detail(error)}") from None
    if not data:
        raise InvalidImage("The form has no file in its field 'image'.")
    images.check_bytes(len(data), max_bytes)
    return data


def _detail(error: MultiPartException | HTTPException) -> str:
    return str(error.detail if isinstance(error, HTTPException) else error.message)


def _answer(body: dict[str, object], error: RehueError | None = None) -> Response:
    headers = {}
    if error is not None and error.retry_after is not None:
        # Whole seconds, rounded up, as RFC 9110 has it.
        headers["Retry-After"] = str(int(-(-error.retry_after // 1)))
    if body["status"] == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, int(str(body["status"])), headers, media_type=PROBLEM)


def _id(request: Request) -> str:
    # Ray names every request, by the caller's own name for it where there is one, and
    # puts that name on the answer.
    return request.headers.get("x-request-id", "")


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RehueError)
    return _answer(problem(error, _id(request)), error)


async def _answer_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    said = "; ".join(f"{item['loc'][-1]}: {item['msg']}" for item in error.errors())
    return await _answer_error(request, InvalidParameter(said))


async def _answer_http(request: Request, error: Exception) -> Response:
    """No such route, or not with this method."""
    assert isinstance(error, HTTPException)
    body: dict[str, object] = {
        "type": "about:blank",
        "title": str(error.detail),
        "status": error.status_code,
        "detail": f"{request.method} {request.url.path}: {error.detail}",
        "request_id": _id(request),
    }
    return _answer(body)


async def _answer_fault(request: Request, _: Exception) -> Response:
    return await _answer_error(request, Internal("The server failed."))
