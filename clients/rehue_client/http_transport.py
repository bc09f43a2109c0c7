"""The HTTP way to one server, with and without asyncio."""

import asyncio
import contextlib
import email.utils
import json
import re
import ssl
import time
from dataclasses import dataclass, fields
from typing import Any

import httpx

from rehue_client import tracing
from rehue_client.errors import (
    BY_REASON,
    DeadlineExceeded,
    ImageTooLarge,
    InvalidParameter,
    Overloaded,
    ProtocolError,
    RehueError,
    Unauthenticated,
    Unavailable,
    UnsupportedImage,
)
from rehue_client.picture import Model, Options, Picture, Timings
from rehue_client.target import Target, Tls

CONNECT = 5.0  # seconds to reach a server before another is tried
PROBLEM = "urn:rehue:problem:"

# As many connections as there are calls under way: callers set the bound.
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=15)

# What a status means that comes without our problem document: from a proxy, or
# from a server that died under the call.
KINDS: dict[int, type[RehueError]] = {
    400: InvalidParameter,
    401: Unauthenticated,
    403: Unauthenticated,
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
    """Asks one server over HTTP, and waits."""

    def __init__(self, target: Target, *, api_key: str | None, tls: Tls) -> None:
        self._target = target
        self._client = httpx.Client(
            base_url=str(target), headers=_headers(api_key), limits=LIMITS, verify=_context(tls)
        )

    def colorize(self, image: bytes, options: Options, *, timeout: float | None) -> Picture:
        request = _colorize(self._client, image, options, timeout)
        return _picture(self._send(request, timeout), self._target)

    def models(self, *, timeout: float | None) -> list[Model]:
        answer = self._send(_get(self._client, "/v1/models", timeout), timeout)
        return _models(answer, self._target)

    def ready(self, *, timeout: float | None) -> bool:
        self._send(_get(self._client, "/readyz", timeout), timeout)
        return True

    def close(self) -> None:
        self._client.close()

    def _send(self, request: httpx.Request, timeout: float | None) -> "_Answer":
        # httpx bounds each wait on the socket; a slow trickle needs the clock too.
        deadline = time.monotonic() + timeout if timeout is not None else float("inf")
        try:
            response = self._client.send(request, stream=True)
            with contextlib.closing(response):
                body = bytearray()
                for part in response.iter_bytes():
                    body += part
                    if time.monotonic() > deadline:
                        raise DeadlineExceeded(f"{self._target}: no whole answer in time")
        except httpx.TransportError as error:
            raise _broken(error, self._target) from error
        return _checked(_Answer(response.status_code, response.headers, bytes(body)), self._target)


class AsyncHttpTransport:
    """Asks one server over HTTP from an event loop."""

    def __init__(self, target: Target, *, api_key: str | None, tls: Tls) -> None:
        self._target = target
        self._client = httpx.AsyncClient(
            base_url=str(target), headers=_headers(api_key), limits=LIMITS, verify=_context(tls)
        )

    async def colorize(self, image: bytes, options: Options, *, timeout: float | None) -> Picture:
        request = _colorize(self._client, image, options, timeout)
        return _picture(await self._send(request, timeout), self._target)

    async def models(self, *, timeout: float | None) -> list[Model]:
        answer = await self._send(_get(self._client, "/v1/models", timeout), timeout)
        return _models(answer, self._target)

    async def ready(self, *, timeout: float | None) -> bool:
        await self._send(_get(self._client, "/readyz", timeout), timeout)
        return True

    async def close(self) -> None:
        await self._client.aclose()

    async def _send(self, request: httpx.Request, timeout: float | None) -> "_Answer":
        try:
            async with asyncio.timeout(timeout):
                response = await self._client.send(request)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self._target}: no whole answer in time") from error
        except httpx.TransportError as error:
            raise _broken(error, self._target) from error
        return _checked(
            _Answer(response.status_code, response.headers, response.content), self._target
        )


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: httpx.Headers
    body: bytes


def _headers(api_key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def _context(tls: Tls) -> ssl.SSLContext | bool:
    if tls == Tls():
        return True
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context


def _colorize(
    client: httpx.Client | httpx.AsyncClient, image: bytes, options: Options, timeout: float | None
) -> httpx.Request:
    query: dict[str, str] = {"strength": f"{options.strength:g}", "format": options.format}
    if options.model is not None:
        query["model"] = options.model
    if options.quality is not None:
        query["quality"] = str(options.quality)
    headers = {"Content-Type": "application/octet-stream", **tracing.headers()}
    if timeout is not None:
        headers["X-Request-Timeout"] = f"{timeout:.3f}"
    return client.build_request(
        "POST", "/v1/colorize",
        params=query, content=image, headers=headers, timeout=_timeout(timeout),
    )  # fmt: skip


def _get(
    client: httpx.Client | httpx.AsyncClient, path: str, timeout: float | None
) -> httpx.Request:
    return client.build_request("GET", path, timeout=_timeout(timeout))


def _timeout(timeout: float | None) -> httpx.Timeout:
    return httpx.Timeout(timeout, connect=CONNECT if timeout is None else min(CONNECT, timeout))


def _picture(answer: _Answer, target: Target) -> Picture:
    media_type = answer.headers.get("Content-Type", "nothing")
    if not media_type.startswith("image/"):
        raise ProtocolError(f"{target} answered with {media_type} in place of a picture")
    return Picture(
        data=answer.body,
        media_type=media_type,
        model=answer.headers.get("X-Rehue-Model", ""),
        request_id=answer.headers.get("X-Request-Id", ""),
        timings=Timings.of(_server_timing(answer.headers.get("Server-Timing", ""))),
    )


def _server_timing(header: str) -> dict[str, float]:
    """The milliseconds of ``decode;dur=1.2, infer;dur=30``."""
    pairs = re.findall(r"(\w+);dur=(\d+(?:\.\d+)?)", header)
    return {name: float(duration) for name, duration in pairs}


def _models(answer: _Answer, target: Target) -> list[Model]:
    try:
        return [
            Model(**{field.name: entry[field.name] for field in fields(Model)})
            for entry in json.loads(answer.body)["models"]
        ]
    except (ValueError, LookupError, TypeError) as error:
        raise ProtocolError(f"{target} answered with no list of models") from error


def _checked(answer: _Answer, target: Target) -> _Answer:
    if answer.status == 200:
        return answer
    problem = _problem(answer)
    reason = str(problem.get("type", "")).removeprefix(PROBLEM).replace("-", "_").upper()
    ours = reason in BY_REASON
    kind = BY_REASON[reason] if ours else KINDS.get(answer.status, ProtocolError)
    raise kind(
        str(problem["detail"]) if ours else f"{target} answered with HTTP {answer.status}",
        request_id=problem.get("request_id") or answer.headers.get("X-Request-Id"),
        retry_after=_retry_after(answer.headers.get("Retry-After")),
    )


def _problem(answer: _Answer) -> dict[str, Any]:
    if not answer.headers.get("Content-Type", "").startswith("application/problem+json"):
        return {}
    try:
        problem = json.loads(answer.body)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _retry_after(header: str | None) -> float | None:
    """Seconds to wait, from seconds or from a date (RFC 9110, 10.2.3)."""
    if header is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", header):
        return float(header)
    date = email.utils.parsedate_tz(header)
    return None if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())


def _broken(error: httpx.TransportError, target: Target) -> RehueError:
    # To be slow in connecting is the address's fault, and another may do better.
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return DeadlineExceeded(f"{target}: no whole answer in time")
    return Unavailable(f"{target}: {error or type(error).__name__}")
