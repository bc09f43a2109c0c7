"""Answers of the HTTP API: pictures, candidates, models and errors."""

import base64
import email.utils
import json
import re
import time
from dataclasses import dataclass, fields
from typing import Any

import httpx

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
from rehue_client.picture import Candidate, Model, Picture, Timings

PROBLEM_TYPE_PREFIX = "urn:rehue:problem:"

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


@dataclass(frozen=True)
class Answer:
    """An HTTP response with its whole body."""

    status: int
    headers: httpx.Headers
    body: bytes


def parse_picture(answer: Answer, route: str) -> Picture:
    """Return the picture of an answer.

    Raises:
        ProtocolError: the answer is no image.
    """
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
        dropped=tuple(filter(None, answer.headers.get("X-Rehue-Dropped", "").split(", "))),
    )


def parse_candidates(answer: Answer, route: str) -> list[Candidate]:
    """Return the candidates of an answer.

    Raises:
        ProtocolError: the answer is no list of candidates.
    """
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


def parse_models(answer: Answer, route: str) -> list[Model]:
    """Return the models of an answer.

    Raises:
        ProtocolError: the answer is no list of models.
    """
    names = {field.name for field in fields(Model)}
    try:
        return [
            Model(**{name: entry[name] for name in entry.keys() & names})
            for entry in json.loads(answer.body)["models"]
        ]
    except (ValueError, LookupError, TypeError) as error:
        raise ProtocolError(f"{route} did not answer with a list of models") from error


def check_status(answer: Answer, route: str) -> Answer:
    """Return the answer if its status is 200.

    Raises:
        RehueError: the error by Rehue's problem document, else by the status.
    """
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


def _parse_problem(answer: Answer) -> dict[str, Any]:
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


def convert_error(error: httpx.TransportError, route: str) -> RehueError:
    """Return the SDK's error for one of httpx."""
    # A slow connection is a problem of this address: another server may be faster.
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return DeadlineExceeded(f"{route}: no complete answer in time")
    return Unavailable(f"{route}: {error or type(error).__name__}")
