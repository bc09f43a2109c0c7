"""HTTP connections to one server, synchronous and asynchronous."""

import asyncio
import contextlib
import io
import ssl
import time
from collections.abc import Callable
from typing import TypeVar

import httpx

from rehue_client.errors import DeadlineExceeded
from rehue_client.http_answers import (
    Answer,
    check_status,
    convert_error,
    parse_candidates,
    parse_models,
    parse_picture,
)
from rehue_client.http_requests import (
    build_candidates_request,
    build_colorize_request,
    build_get_request,
)
from rehue_client.picture import Candidate, CandidateOptions, Model, Options, Picture
from rehue_client.proxy import describe_route, is_loopback
from rehue_client.target import Target, Tls

C = TypeVar("C", httpx.Client, httpx.AsyncClient)

# One connection per call in flight; callers limit the calls.
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=15)


class HttpTransport:
    """Synchronous HTTP connection."""

    def __init__(self, target: Target, *, api_key: str | None, tls: Tls) -> None:
        self._route = describe_route(target)
        self._client = _create_client(httpx.Client, target, api_key, tls)

    def colorize(self, image: bytes, options: Options, *, timeout: float | None) -> Picture:
        request = build_colorize_request(self._client, image, options, timeout)
        return parse_picture(self._send(request, timeout), self._route)

    def candidates(
        self, image: bytes, options: CandidateOptions, *, timeout: float | None
    ) -> list[Candidate]:
        request = build_candidates_request(self._client, image, options, timeout)
        return parse_candidates(self._send(request, timeout), self._route)

    def models(self, *, timeout: float | None) -> list[Model]:
        answer = self._send(build_get_request(self._client, "/v1/models", timeout), timeout)
        return parse_models(answer, self._route)

    def ready(self, *, timeout: float | None) -> bool:
        self._send(build_get_request(self._client, "/readyz", timeout), timeout)
        return True

    def close(self) -> None:
        self._client.close()

    def _send(self, request: httpx.Request, timeout: float | None) -> Answer:
        # httpx limits each wait on the socket; slow trickles need a deadline for the whole.
        deadline = time.monotonic() + timeout if timeout is not None else float("inf")
        try:
            response = self._client.send(request, stream=True)
            with contextlib.closing(response):
                body = io.BytesIO()
                for chunk in response.iter_bytes():
                    body.write(chunk)
                    if time.monotonic() > deadline:
                        raise DeadlineExceeded(f"{self._route}: no complete answer in time")
        except httpx.TransportError as error:
            raise convert_error(error, self._route) from error
        return check_status(_take_answer(response, body), self._route)


class AsyncHttpTransport:
    """Asynchronous HTTP connection, bound to one event loop."""

    def __init__(self, target: Target, *, api_key: str | None, tls: Tls) -> None:
        self._route = describe_route(target)
        self._client = _create_client(httpx.AsyncClient, target, api_key, tls)

    async def colorize(self, image: bytes, options: Options, *, timeout: float | None) -> Picture:
        request = build_colorize_request(self._client, image, options, timeout)
        return parse_picture(await self._send(request, timeout), self._route)

    async def candidates(
        self, image: bytes, options: CandidateOptions, *, timeout: float | None
    ) -> list[Candidate]:
        request = build_candidates_request(self._client, image, options, timeout)
        return parse_candidates(await self._send(request, timeout), self._route)

    async def models(self, *, timeout: float | None) -> list[Model]:
        answer = await self._send(build_get_request(self._client, "/v1/models", timeout), timeout)
        return parse_models(answer, self._route)

    async def ready(self, *, timeout: float | None) -> bool:
        await self._send(build_get_request(self._client, "/readyz", timeout), timeout)
        return True

    async def close(self) -> None:
        await self._client.aclose()

    async def _send(self, request: httpx.Request, timeout: float | None) -> Answer:
        try:
            async with asyncio.timeout(timeout):
                response = await self._client.send(request, stream=True)
                async with contextlib.aclosing(response):
                    body = io.BytesIO()
                    async for chunk in response.aiter_bytes():
                        body.write(chunk)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self._route}: no complete answer in time") from error
        except httpx.TransportError as error:
            raise convert_error(error, self._route) from error
        return check_status(_take_answer(response, body), self._route)


def _take_answer(response: httpx.Response, body: io.BytesIO) -> Answer:
    """Take what is needed of a response, and free the rest.

    httpx's response and its stream refer to each other. They would keep the photograph until
    Python looks for such cycles, which it may do only after dozens of photographs.
    """
    response.stream = httpx.ByteStream(b"")
    return Answer(response.status_code, response.headers, body.getvalue())


def _create_client(kind: Callable[..., C], target: Target, api_key: str | None, tls: Tls) -> C:
    try:
        return kind(
            base_url=str(target),
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
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
