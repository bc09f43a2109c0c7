"""HTTP connections to one server, synchronous and asynchronous."""

import asyncio
import base64
import contextlib
import email.utils
import json
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar, cast

import httpx

from rehue_client import tracing
from rehue_client.choices import CHOICES
from rehue_client.edits import Edits
from rehue_client.errors import (
    ERRORS_BY_REASON,
    DeadlineExceeded,
    ImageTooLarge,
    InvalidParameter,
    NotServing,
    Overloaded,
    ProtocolError,
    RehueError,
    Unauthenticated,
    Unavailable,
    UnsupportedImage,
)
from rehue_client.picture import Candidate, Model, Options, Picture, Timings
from rehue_client.proxy import describe_route, is_loopback
from rehue_client.target import Target, Tls

C = TypeVar("C", httpx.Client, httpx.AsyncClient)

CONNECT_TIMEOUT = 5.0  # seconds to connect before the attempt fails
PROBLEM_TYPE_PREFIX = "urn:rehue:problem:"

# One connection per call in flight; callers limit the calls.
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=15)

# Errors for a status without Rehue's problem document: from a proxy, or because the
# server died during the call.
ERRORS_BY_STATUS: dict[int, type[RehueError]] = {
    400: InvalidParameter,
    401: Unauthenticated,
    403: Unauthenticated,
    404: NotServing,
    408: Unavailable,  # a proxy's, for a slow upload: sent again (RFC 9110, 15.5.9)
    413: ImageTooLarge,
    415: UnsupportedImage,
    422: InvalidParameter,
    429: Overloaded,
    500: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: DeadlineExceeded,
}


class HttpTransport:
    """Synchronous HTTP connection."""

    def __init__(self, target: Target, *, api_key: str | None, tls: Tls) -> None:
        self._route = describe_route(target)
        self._client = _create_client(httpx.Client, target, api_key, tls)

    def colorize(self, image: bytes, options: Options, *, timeout: float | None) -> Picture:
        request = _build_colorize_request(self._client, image, options, timeout)
        return _parse_picture(self._send(request, timeout), self._route)

    def candidates(
        self, image: bytes, options: Options, size: int, *, timeout: float | None
    ) -> list[Candidate]:
        request = _build_candidates_request(self._client, image, options, size, timeout)
        return _parse_candidates(self._send(request, timeout), self._route)

    def models(self, *, timeout: float | None) -> list[Model]:
        answer = self._send(_build_get_request(self._client, "/v1/models", timeout), timeout)
        return _parse_models(answer, self._route)

    def ready(self, *, timeout: float | None) -> bool:
        self._send(_build_get_request(self._client, "/readyz", timeout), timeout)
        return True

    def close(self) -> None:
        self._client.close()

    def _send(self, request: httpx.Request, timeout: float | None) -> "_Answer":
        # httpx limits each wait on the socket; slow trickles need a deadline for the whole.
        deadline = time.monotonic() + timeout if timeout is not None else float("inf")
        try:
            response = self._client.send(request, stream=True)
            with contextlib.closing(response):
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if time.monotonic() > deadline:
                        raise DeadlineExceeded(f"{self._route}: no complete answer in time")
        except httpx.TransportError as error:
            raise _convert_error(error, self._route) from error
        return _check_status(
            _Answer(response.status_code, response.headers, bytes(body)), self._route
        )


class AsyncHttpTransport:
    """Asynchronous HTTP connection, bound to one event loop."""

    def __init__(self, target: Target, *, api_key: str | None, tls: Tls) -> None:
        self._route = describe_route(target)
        self._client = _create_client(httpx.AsyncClient, target, api_key, tls)

    async def colorize(self, image: bytes, options: Options, *, timeout: float | None) -> Picture:
        request = _build_colorize_request(self._client, image, options, timeout)
        return _parse_picture(await self._send(request, timeout), self._route)

    async def candidates(
        self, image: bytes, options: Options, size: int, *, timeout: float | None
    ) -> list[Candidate]:
        request = _build_candidates_request(self._client, image, options, size, timeout)
        return _parse_candidates(await self._send(request, timeout), self._route)

    async def models(self, *, timeout: float | None) -> list[Model]:
        answer = await self._send(_build_get_request(self._client, "/v1/models", timeout), timeout)
        return _parse_models(answer, self._route)

    async def ready(self, *, timeout: float | None) -> bool:
        await self._send(_build_get_request(self._client, "/readyz", timeout), timeout)
        return True

    async def close(self) -> None:
        await self._client.aclose()

    async def _send(self, request: httpx.Request, timeout: float | None) -> "_Answer":
        try:
            async with asyncio.timeout(timeout):
                response = await self._client.send(request)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self._route}: no complete answer in time") from error
        except httpx.TransportError as error:
            raise _convert_error(error, self._route) from error
        return _check_status(
            _Answer(response.status_code, response.headers, response.content), self._route
        )


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: httpx.Headers
    body: bytes


def _build_headers(api_key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def _create_client(kind: Callable[..., C], target: Target, api_key: str | None, tls: Tls) -> C:
    try:
        return kind(
            base_url=str(target),
            headers=_build_headers(api_key),
            limits=LIMITS,
            verify=_create_ssl_context(tls),
            trust_env=not is_loopback(target.host),  # no proxy for this machine
        )
    except (ValueError, ImportError) as error:
        # An address that is not one, or SOCKS without the package for it.
        raise ValueError(f"{describe_route(target)}: {error}") from error


def _create_ssl_context(tls: Tls) -> ssl.SSLContext | bool:
    if tls == Tls():
        return True
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context


def _build_colorize_request(
    client: httpx.Client | httpx.AsyncClient, image: bytes, options: Options, timeout: float | None
) -> httpx.Request:
    parameters = {**_build_parameters(options), "format": options.format}
    if options.quality is not None:
        parameters["quality"] = str(options.quality)
    for name, (default, *_) in CHOICES.items():
        if getattr(options, name) != default:
            parameters[name] = getattr(options, name)
    return _build_photograph_request(
        client, "/v1/colorize", image, options.edits, parameters, timeout
    )


def _build_candidates_request(
    client: httpx.Client | httpx.AsyncClient,
    image: bytes,
    options: Options,
    size: int,
    timeout: float | None,
) -> httpx.Request:
    parameters = {**_build_parameters(options), "size": str(size)}
    return _build_photograph_request(
        client, "/v1/candidates", image, options.edits, parameters, timeout
    )


def _build_parameters(options: Options) -> dict[str, str]:
    """Return the parameters of colours; those of edits only where they change something."""
    parameters = {"strength": f"{options.strength:g}"}
    if options.model is not None:
        parameters["model"] = options.model
    return parameters | options.edits.to_parameters()


def _build_photograph_request(
    client: httpx.Client | httpx.AsyncClient,
    path: str,
    image: bytes,
    edits: Edits,
    parameters: dict[str, str],
    timeout: float | None,
) -> httpx.Request:
    """Send the photograph as the body, or as a form where hints or a reference go with it."""
    headers = tracing.get_trace_headers()
    if timeout is not None:
        headers["X-Request-Timeout"] = f"{timeout:.3f}"
    body: dict[str, Any]
    if edits.hints or edits.reference is not None:
        files = {"image": image}
        if edits.reference is not None:
            files["reference"] = cast("bytes", edits.reference)
        body = {"files": files, "data": parameters}
    else:
        headers["Content-Type"] = "application/octet-stream"
        body = {"content": image, "params": parameters}
    return client.build_request(
        "POST", path, headers=headers, timeout=_convert_timeout(timeout), **body
    )


def _build_get_request(
    client: httpx.Client | httpx.AsyncClient, path: str, timeout: float | None
) -> httpx.Request:
    return client.build_request("GET", path, timeout=_convert_timeout(timeout))


def _convert_timeout(timeout: float | None) -> httpx.Timeout:
    return httpx.Timeout(
        timeout, connect=CONNECT_TIMEOUT if timeout is None else min(CONNECT_TIMEOUT, timeout)
    )


def _parse_picture(answer: _Answer, route: str) -> Picture:
    media_type = answer.headers.get("Content-Type", "nothing")
    if not media_type.startswith("image/"):
        raise ProtocolError(f"{route} answered with {media_type} instead of an image")
    pages, frames = _parse_pages(answer.headers.get("X-Rehue-Pages", ""))
    return Picture(
        data=answer.body,
        media_type=media_type,
        model=answer.headers.get("X-Rehue-Model", ""),
        request_id=answer.headers.get("X-Request-Id", ""),
        timings=Timings.from_stages(_parse_server_timing(answer.headers.get("Server-Timing", ""))),
        pages=pages,
        frames=frames,
    )


def _parse_candidates(answer: _Answer, route: str) -> list[Candidate]:
    try:
        return [
            Candidate(
                name=entry["name"],
                data=base64.b64decode(entry["image"]),
                strength=entry["edits"].get("strength", 1.0),
                edits=Edits.from_document(entry["edits"]),
            )
            for entry in json.loads(answer.body)["candidates"]
        ]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ProtocolError(f"{route} did not answer with a list of candidates") from error


def _parse_pages(header: str) -> tuple[int, int]:
    """Return pages answered and frames in the file from ``1/12``."""
    found = re.fullmatch(r"(\d+)/(\d+)", header)
    return (int(found[1]), int(found[2])) if found else (1, 1)


def _parse_server_timing(header: str) -> dict[str, float]:
    """Return milliseconds by stage from ``decode;dur=1.2, infer;dur=30``."""
    pairs = re.findall(r"(\w+);dur=(\d+(?:\.\d+)?)", header)
    return {name: float(duration) for name, duration in pairs}


def _parse_models(answer: _Answer, route: str) -> list[Model]:
    names = {field.name for field in fields(Model)}
    try:
        return [
            Model(**{name: entry[name] for name in entry.keys() & names})
            for entry in json.loads(answer.body)["models"]
        ]
    except (ValueError, LookupError, TypeError) as error:
        raise ProtocolError(f"{route} did not answer with a list of models") from error


def _check_status(answer: _Answer, route: str) -> _Answer:
    if answer.status == 200:
        return answer
    problem = _parse_problem(answer)
    reason = (
        str(problem.get("type", "")).removeprefix(PROBLEM_TYPE_PREFIX).replace("-", "_").upper()
    )
    is_ours = reason in ERRORS_BY_REASON
    kind = (
        ERRORS_BY_REASON[reason] if is_ours else ERRORS_BY_STATUS.get(answer.status, ProtocolError)
    )
    raise kind(
        str(problem["detail"]) if is_ours else f"{route} answered with HTTP {answer.status}",
        request_id=problem.get("request_id") or answer.headers.get("X-Request-Id"),
        retry_after=_parse_retry_after(answer.headers.get("Retry-After")),
    )


def _parse_problem(answer: _Answer) -> dict[str, Any]:
    if not answer.headers.get("Content-Type", "").startswith("application/problem+json"):
        return {}
    try:
        problem = json.loads(answer.body)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _parse_retry_after(header: str | None) -> float | None:
    """Return the seconds to wait, given as seconds or as a date (RFC 9110, 10.2.3)."""
    if header is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", header):
        return float(header)
    date = email.utils.parsedate_tz(header)
    return None if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())


def _convert_error(error: httpx.TransportError, route: str) -> RehueError:
    # A slow connection is a problem of this address: another server may be faster.
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return DeadlineExceeded(f"{route}: no complete answer in time")
    return Unavailable(f"{route}: {error or type(error).__name__}")
