"""Requests of the HTTP API, as httpx sends them."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import httpx

from rehue_client import tracing
from rehue_client.choices import CHOICES
from rehue_client.edits import Edits
from rehue_client.picture import CandidateOptions, Options

CONNECT_TIMEOUT = 5.0  # seconds to connect before the attempt fails
PIECE = 1024**2  # bytes of a body that are sent at a time


def build_colorize_request(
    client: httpx.Client | httpx.AsyncClient, image: bytes, options: Options, timeout: float | None
) -> httpx.Request:
    """Build the request of one picture; `timeout` is in seconds."""
    parameters = {**_build_parameters(options), "format": options.format}
    if options.quality is not None:
        parameters["quality"] = str(options.quality)
    for name, (default, *_) in CHOICES.items():
        if getattr(options, name) != default:
            parameters[name] = getattr(options, name)
    return _build_photograph_request(
        client, "/v1/colorize", image, options.edits, parameters, timeout
    )


def build_candidates_request(
    client: httpx.Client | httpx.AsyncClient,
    image: bytes,
    options: CandidateOptions,
    timeout: float | None,
) -> httpx.Request:
    """Build the request of candidates; `timeout` is in seconds."""
    parameters = {**_build_parameters(options), "size": str(options.size)}
    if options.more_looks:
        parameters["more_looks"] = "true"
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
    request = client.build_request(
        "POST", path, headers=headers, timeout=_convert_timeout(timeout), **body
    )
    if "content" in body:
        request.stream = _Pieces(image)
    return request


class _Pieces(httpx.ByteStream):
    """A body that is sent in pieces: the libraries below copy what they get at once."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._body), PIECE):
            yield self._body[start : start + PIECE]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.__iter__():
            yield piece


def build_get_request(
    client: httpx.Client | httpx.AsyncClient, path: str, timeout: float | None
) -> httpx.Request:
    """Build a request without a body; `timeout` is in seconds."""
    return client.build_request("GET", path, timeout=_convert_timeout(timeout))


def _convert_timeout(timeout: float | None) -> httpx.Timeout:
    return httpx.Timeout(
        timeout, connect=CONNECT_TIMEOUT if timeout is None else min(CONNECT_TIMEOUT, timeout)
    )
