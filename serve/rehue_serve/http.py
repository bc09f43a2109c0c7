"""HTTP routes. Images and colours are handled by `rehue_serve.pipeline`."""

import asyncio
from importlib import resources
from typing import Annotated, Literal

from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from fastapi_offline import FastAPIOffline

from rehue_serve.bodies import read_photograph
from rehue_serve.errors import InvalidParameter
from rehue_serve.http_errors import add_error_handlers, get_request_id
from rehue_serve.observation import observe_request
from rehue_serve.openapi import PHOTOGRAPH_BODY, PICTURE_RESPONSE, PROBLEM_RESPONSES
from rehue_serve.pipeline import DEFAULT_QUALITY, STAGES, Colorized, Parameters
from rehue_serve.service import Service

Format = Literal["auto", "jpeg", "png", "webp", "tiff"]
MetadataChoice = Literal["keep", "none"]


def build_http_app(service: Service) -> FastAPI:
    """Build the HTTP application of a service."""
    app = FastAPIOffline(  # serves its own scripts: closed networks reach no CDN
        title="Rehue",
        description="Colours for black-and-white photographs.",
        version="1",
        redoc_url=None,
        static_url="/docs/static",
    )
    add_error_handlers(app)
    _add_colorize_route(app, service)
    _add_status_routes(app, service)
    _add_page(app)
    return app


def _add_colorize_route(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/colorize",
        response_class=Response,
        openapi_extra=PHOTOGRAPH_BODY,
        responses={**PICTURE_RESPONSE, **PROBLEM_RESPONSES},
    )
    async def colorize(
        request: Request,
        model: Annotated[str, Query(description="Name of the model; empty: the default.")] = "",
        strength: Annotated[float, Query(ge=0, le=2, description="Scales chroma.")] = 1.0,
        format: Annotated[Format, Query(description="auto: the input's format.")] = "auto",
        quality: Annotated[
            int, Query(ge=1, le=100, description="Quality of JPEG and WebP.")
        ] = DEFAULT_QUALITY,
        metadata: Annotated[
            MetadataChoice, Query(description="keep or none: EXIF, IPTC, XMP, captions.")
        ] = "keep",
    ) -> Response:
        """Colorizes one photograph; it keeps its size and its lightness."""
        request_id = get_request_id(request)
        with observe_request(
            "http", "POST /v1/colorize", request_id, lambda: request.headers
        ) as record:
            caller = service.keys.authenticate(request.headers.get("authorization"))
            deadline = _parse_deadline(request)
            parameters = Parameters(model, strength, format, quality, metadata)
            service.admission.check_open(caller)
            with service.uploads.hold() as upload:
                async with upload.receive(deadline):
                    data = await read_photograph(request, upload, service.settings.max_bytes)
                record.bytes_in = len(data)
                async with service.admission.admit(caller, deadline) as end:
                    picture = await service.pipeline.colorize(data, parameters, end)
            record.picture = picture
        return _build_picture_response(picture)


def _add_status_routes(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", response_class=PlainTextResponse)
    async def get_health() -> str:
        """Alive."""
        return "ok"

    @app.get("/readyz", response_class=PlainTextResponse, responses=_select_problems(503))
    async def get_readiness() -> str:
        """Ready: a Triton serves the default model, and the server is not stopping."""
        if not service.ready:
            raise service.build_unready_error()
        return "ready"

    @app.get("/v1/models", responses=_select_problems(401, 503))
    async def list_models(request: Request) -> dict[str, object]:
        """The models, their versions and state."""
        service.keys.authenticate(request.headers.get("authorization"))
        return {"models": await service.triton.models.list_models()}


def _add_page(app: FastAPI) -> None:
    page = resources.files("rehue_serve").joinpath("page.html").read_text()

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def get_page() -> HTMLResponse:
        return HTMLResponse(page)


def _parse_deadline(request: Request) -> float | None:
    """Return the loop time at which the caller stops waiting, if it says so."""
    value = request.headers.get("x-request-timeout")
    if value is None:
        return None
    try:
        timeout = float(value)
    except ValueError:
        timeout = 0.0
    if not 0 < timeout < float("inf"):
        raise InvalidParameter("X-Request-Timeout must be a number of seconds above 0.")
    return asyncio.get_running_loop().time() + timeout


def _build_picture_response(picture: Colorized) -> Response:
    timings = ", ".join(f"{stage};dur={picture.timings[stage]:.2f}" for stage in STAGES)
    return Response(
        picture.data,
        media_type=picture.media_type,
        headers={
            "X-Rehue-Model": picture.model,
            "X-Rehue-Pages": f"{picture.pages}/{picture.frames}",
            "Server-Timing": timings,
        },
    )


def _select_problems(*statuses: int) -> dict[int | str, dict[str, object]]:
    return {status: PROBLEM_RESPONSES[status] for status in statuses}
