"""Domain errors as HTTP answers: RFC 9457 problem details."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rehue_serve.errors import Internal, InvalidParameter, RehueError, get_reason_name
from rehue_serve.parameters import describe_errors
from rehue_serve.statuses import HTTP_STATUS

log = logging.getLogger(__name__)

PROBLEM_MEDIA_TYPE = "application/problem+json"


def get_problem_type(error: RehueError | type[RehueError]) -> str:
    """Return the URI of a problem's type."""
    return f"urn:rehue:problem:{get_reason_name(error).lower().replace('_', '-')}"


def build_problem(error: RehueError, request_id: str) -> dict[str, object]:
    """Build the RFC 9457 body of an error."""
    return {
        "type": get_problem_type(error),
        "title": error.title,
        "status": HTTP_STATUS[type(error)].value,
        "detail": error.detail,
        "request_id": request_id,
    }


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error of the application with a problem."""
    app.add_exception_handler(RehueError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_middleware(_FaultMiddleware)


def get_request_id(request: Request) -> str:
    """Return the request's id, which Ray sets: the caller's own X-Request-Id, or a new one.

    Ray adds it to the answer's headers too.
    """
    return request.headers.get("x-request-id", "")


class _FaultMiddleware:
    """Logs exceptions that are no RehueError and answers them with a generic problem.

    Starlette's own handler for ``Exception`` raises them again, so that the server around
    it logs them a second time.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answered = False

        async def send_noting_start(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._app(scope, receive, send_noting_start)
        except Exception:  # a fault: its cause is logged, and the caller gets INTERNAL
            if answered or scope["type"] != "http":
                raise
            log.exception("%s %s failed", scope["method"], scope["path"])
            response = _build_error_response(Internal("The server failed."), Request(scope))
            await response(scope, receive, send)


def _build_error_response(error: RehueError, request: Request) -> Response:
    return _build_response(build_problem(error, get_request_id(request)), error.retry_after)


def _build_response(problem: dict[str, object], retry_after: float | None = None) -> Response:
    headers = {}
    if retry_after is not None:
        # RFC 9110 has whole seconds; rounded up.
        headers["Retry-After"] = str(int(-(-retry_after // 1)))
    if problem["status"] == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    status = int(str(problem["status"]))
    return JSONResponse(problem, status, headers, media_type=PROBLEM_MEDIA_TYPE)


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RehueError)
    return _build_error_response(error, request)


async def _answer_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _build_error_response(InvalidParameter(describe_errors(error.errors())), request)


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    """Answer a request for an unknown route, or with the wrong method."""
    assert isinstance(error, HTTPException)
    response = _build_response(
        {
            "type": "about:blank",
            "title": str(error.detail),
            "status": error.status_code,
            "detail": f"{request.method} {request.url.path}: {error.detail}",
            "request_id": get_request_id(request),
        }
    )
    if error.headers and "Allow" in error.headers:
        allowed = error.headers["Allow"]
        # HEAD is answered wherever GET is.
        response.headers["Allow"] = f"{allowed}, HEAD" if "GET" in allowed else allowed
    return response
