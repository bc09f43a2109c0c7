"""Requests, answers and errors of the gRPC API."""

import dataclasses
import io
from collections.abc import Iterable, Iterator
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from rehue_client.choices import CHOICES, LOOKS
from rehue_client.edits import Edits, Hint
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
)
from rehue_client.picture import Candidate, CandidateOptions, Model, Options, Picture, Timings
from rehue_client.v1 import rehue_pb2

CHUNK = 1024**2  # bytes of a photograph in one message

# Errors for a status without Rehue's details: from a proxy, from gRPC itself, or
# because the server died during the call.
ERRORS_BY_STATUS: dict[grpc.StatusCode, type[RehueError]] = {
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.ABORTED: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.INTERNAL: Unavailable,
    grpc.StatusCode.UNKNOWN: Unavailable,
    grpc.StatusCode.NOT_FOUND: NotServing,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: Unauthenticated,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidParameter,
}


def parse_models(answer: rehue_pb2.ListModelsResponse) -> list[Model]:
    """Return the models of an answer."""
    names = [field.name for field in dataclasses.fields(Model)]
    return [Model(**{name: getattr(model, name) for name in names}) for model in answer.models]


def build_request(image: bytes, options: Options) -> rehue_pb2.ColorizeRequest:
    """Build the request of one picture; the options as the proto names them."""
    return rehue_pb2.ColorizeRequest(
        image=image,
        model=options.model,
        strength=options.strength,
        quality=options.quality,
        **{name: f"{name}_{getattr(options, name)}".upper() for name in CHOICES},
        edits=_build_edits(options.edits),
    )


def build_candidates_request(
    image: bytes, options: CandidateOptions
) -> rehue_pb2.CandidatesRequest:
    """Build the request of candidates."""
    return rehue_pb2.CandidatesRequest(
        image=image,
        model=options.model,
        strength=options.strength,
        edits=_build_edits(options.edits),
        size=options.size,
        more_looks=options.more_looks,
    )


def _build_edits(edits: Edits) -> rehue_pb2.Edits | None:
    if not edits:
        return None
    return rehue_pb2.Edits(
        warmth=edits.warmth,
        tint=edits.tint,
        hints=[rehue_pb2.Hint(x=hint.x, y=hint.y, color=hint.color) for hint in edits.hints],
        palette=edits.palette,
        reference=cast("bytes", edits.reference),
        palette_strength=edits.palette_strength,
        look=f"LOOK_{edits.look}".upper(),
    )


def parse_candidate(candidate: rehue_pb2.Candidate) -> Candidate:
    """Return a candidate of an answer."""
    edits = candidate.edits
    return Candidate(
        name=candidate.name,
        data=candidate.image,
        strength=round(candidate.strength, 6),
        edits=Edits(
            warmth=edits.warmth,
            tint=edits.tint,
            hints=tuple(Hint(hint.x, hint.y, hint.color) for hint in edits.hints),
            palette=tuple(edits.palette),
            palette_strength=edits.palette_strength,
            look=LOOKS[edits.look],
        ),
    )


def split_request(image: bytes, options: Options) -> Iterator[rehue_pb2.ColorizeRequest]:
    """Yield the requests of a large photograph; the first has the options."""
    yield build_request(image[:CHUNK], options)
    for start in range(CHUNK, len(image), CHUNK):
        yield rehue_pb2.ColorizeRequest(image=image[start : start + CHUNK])


class ChunkedPicture:
    """A picture that comes in chunks."""

    def __init__(self) -> None:
        self._first: rehue_pb2.ColorizeResponse | None = None
        self._data = io.BytesIO()

    def add(self, answer: rehue_pb2.ColorizeResponse) -> None:
        """Add a chunk; the first one describes the picture."""
        self._first = self._first or answer
        self._data.write(answer.image)

    def join(self) -> Picture:
        """Return the picture.

        Raises:
            ProtocolError: there is none.
        """
        if self._first is None:
            raise ProtocolError("the server answered without a picture")
        return dataclasses.replace(parse_picture(self._first), data=self._data.getvalue())


def parse_picture(answer: rehue_pb2.ColorizeResponse) -> Picture:
    """Return the picture of an answer; without a count it is of one page and one frame."""
    stages = {stage.name: value for stage, value in answer.timings.ListFields()}
    return Picture(
        data=answer.image,
        media_type=answer.media_type,
        model=answer.model,
        request_id=answer.request_id,
        timings=Timings.from_stages(stages),
        pages=answer.pages or 1,
        frames=answer.frames or 1,
        dropped=tuple(answer.dropped),
    )


def convert_error(error: grpc.RpcError, route: str) -> RehueError:
    """Return the SDK's error for gRPC's: by Rehue's details, else by gRPC's status."""
    status = _parse_status(error.trailing_metadata() or ())
    if status is not None:
        info, delay = _parse_details(status)
        if info.domain == "rehue" and info.reason in ERRORS_BY_REASON:
            return ERRORS_BY_REASON[info.reason](
                status.message,
                request_id=info.metadata.get("request_id"),
                retry_after=delay,
            )
    text = error.details() or "no reason given"
    # gRPC's text for a message over the server's limit; there is no code for it.
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "message larger than max" in text:
        return ImageTooLarge(text)
    kind = ERRORS_BY_STATUS.get(error.code(), ProtocolError)
    # gRPC's code for an HTTP 404, as a proxy answers it while the server is starting.
    if error.code() is grpc.StatusCode.UNIMPLEMENTED and "header with status: 404" in text:
        kind = NotServing
    return kind(f"{route}: {text} ({error.code().name})")


def _parse_status(metadata: Iterable[Any]) -> status_pb2.Status | None:
    """Return the google.rpc.Status in trailing metadata (pairs of a key and str or bytes)."""
    for key, value in metadata:
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def _parse_details(status: status_pb2.Status) -> tuple[error_details_pb2.ErrorInfo, float | None]:
    """Return the ErrorInfo and the seconds to wait, as far as the status has them."""
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    delay = None
    for detail in status.details:
        detail.Unpack(info)
        if detail.Unpack(retry):
            delay = retry.retry_delay.ToMilliseconds() / 1000
    return info, delay
