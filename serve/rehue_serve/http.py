"""HTTP routes. Images and colours are handled by `rehue_serve.pipeline`."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

from fastapi import FastAPI, Query, Request, Security
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import PlainTextResponse, Response
from fastapi.security import HTTPBearer

from rehue_serve.answers import LimitedResponse, PictureResponse, build_headers
from rehue_serve.bodies import read_body
from rehue_serve.candidates import Candidates
from rehue_serve.candidates_json import CandidatesAnswer, build_candidates_answer
from rehue_serve.choices import Parameters
from rehue_serve.errors import InvalidParameter
from rehue_serve.http_errors import add_error_handlers, get_request_id
from rehue_serve.middleware import RequestVariants, SecurityHeaders
from rehue_serve.observation import observe_request
from rehue_serve.openapi import (
    KEY_IS_OPTIONAL,
    PICTURE_RESPONSE,
    PROBLEM_RESPONSES,
    describe_photograph_request,
)
from rehue_serve.pages import add_pages
from rehue_serve.parameters import CandidatesParameters, ColorizeParameters, EditParameters
from rehue_serve.pipeline import Colorized
from rehue_serve.service import Service

A = TypeVar("A", Colorized, Candidates)

# Request headers that a page of another origin may send, and those of answers that it may read.
CORS_REQUEST_HEADERS = (
    "Authorization", "Content-Type", "X-Request-Id", "X-Request-Timeout",
    "traceparent", "tracestate",
)  # fmt: skip
CORS_ANSWER_HEADERS = (
    "X-Request-Id", "X-Rehue-Model", "X-Rehue-Pages", "X-Rehue-Dropped", "Server-Timing",
    "Retry-After",
)  # fmt: skip

API_KEY = HTTPBearer(
    auto_error=False, scheme_name="API key", description="Needed where the server has keys."
)


def build_http_app(service: Service) -> FastAPI:
    """Build the HTTP application of a service."""
    app = FastAPI(
        title="Rehue",
        description="Colours for black-and-white photographs.",
        version="1",
        docs_url=None,  # see `rehue_serve.pages`
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        redirect_slashes=False,  # `RequestVariants` answers such paths
    )
    add_error_handlers(app)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestVariants)
    if service.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=CORS_REQUEST_HEADERS,
            expose_headers=CORS_ANSWER_HEADERS,
        )
    _add_colorize_routes(app, service)
    _add_status_routes(app, service)
    add_pages(app)
    return app


def _add_colorize_routes(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/colorize",
        response_class=Response,
        openapi_extra=describe_photograph_request(ColorizeParameters),
        dependencies=[Security(API_KEY)],
        responses={**PICTURE_RESPONSE, **PROBLEM_RESPONSES},
    )
    async def colorize(
        request: Request,
        parameters: Annotated[ColorizeParameters, Query()],
    ) -> Response:
        """Colorizes one photograph; it keeps its size and its lightness."""
        picture = await _receive_and_process(
            service, request, parameters, service.pipeline.colorize
        )
        return PictureResponse(picture, service.uploads)

    @app.post(
        "/v1/candidates",
        response_model=CandidatesAnswer,
        openapi_extra=describe_photograph_request(CandidatesParameters),
        dependencies=[Security(API_KEY)],
        responses=PROBLEM_RESPONSES,
    )
    async def propose(
        request: Request,
        parameters: Annotated[CandidatesParameters, Query()],
    ) -> Response:
        """Several versions of one photograph to choose from, each with its parameters."""
        found = await _receive_and_process(service, request, parameters, service.pipeline.propose)
        content = build_candidates_answer(found).model_dump_json().encode()
        headers = build_headers(found)
        return LimitedResponse(content, "application/json", headers, service.uploads)


async def _receive_and_process(
    service: Service,
    request: Request,
    parameters: EditParameters,
    work: Callable[[bytes, Parameters, float], Awaitable[A]],
) -> A:
    """Receive a photograph, and give it to a method of the pipeline when there is a place."""
    request_id, route = get_request_id(request), f"POST {request.url.path}"
    with observe_request("http", route, request_id, lambda: request.headers) as record:
        caller = service.keys.authenticate(request.headers.get("authorization"))
        deadline = _parse_deadline(request)
        service.admission.check_open(caller)
        with service.uploads.hold() as upload:
            async with upload.receive(deadline):
                body = await read_body(request, upload, service.settings.byte_limit)
            record.bytes_in = len(body.photograph)
            choices = parameters.add_fields(body.fields).build_parameters(body.reference)
            async with service.admission.admit(caller, deadline, runs=choices.runs) as end:
                answer = await work(body.take_photograph(), choices, end)
        record.picture = answer
    return answer


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

    @app.get(
        "/v1/models",
        responses=_select_problems(401, 503),
        openapi_extra=KEY_IS_OPTIONAL,
        dependencies=[Security(API_KEY)],
    )
    async def list_models(request: Request) -> dict[str, object]:
        """The models, their versions and state."""
        service.keys.authenticate(request.headers.get("authorization"))
        return {"models": await service.triton.models.list_models()}


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


def _select_problems(*statuses: int) -> dict[int | str, dict[str, object]]:
    return {status: PROBLEM_RESPONSES[status] for status in statuses}
