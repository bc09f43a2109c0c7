"""What can go wrong, once, and what each protocol calls it.

RehueError
|- InvalidImage        not an image, broken or cut short
|- ImageTooLarge       over the byte or the pixel limit
|- UnsupportedImage    a kind of image that is not read
|- InvalidParameter    a parameter out of range
|- UnknownModel
|- Unauthenticated     key missing or wrong
|- Overloaded          try again after `retry_after`
|- Unavailable         no Triton serves the model, or we stop; try again after `retry_after`
|- DeadlineExceeded
`- Internal            a fault of ours; the cause is in the log, never in the message
"""

from http import HTTPStatus

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2


class RehueError(Exception):
    """An answer that is not a picture. ``str()`` is a sentence for the caller."""

    code: str
    title: str

    def __init__(self, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after  # seconds


class InvalidImage(RehueError):
    code, title = "INVALID_IMAGE", "The image cannot be read"


class ImageTooLarge(RehueError):
    code, title = "IMAGE_TOO_LARGE", "The image is too large"


class UnsupportedImage(RehueError):
    code, title = "UNSUPPORTED_IMAGE", "This kind of image is not read"


class InvalidParameter(RehueError):
    code, title = "INVALID_PARAMETER", "A parameter is out of range"


class UnknownModel(RehueError):
    code, title = "UNKNOWN_MODEL", "There is no such model"


class Unauthenticated(RehueError):
    code, title = "UNAUTHENTICATED", "An API key is needed"


class Overloaded(RehueError):
    code, title = "OVERLOADED", "The server is busy"


class Unavailable(RehueError):
    code, title = "UNAVAILABLE", "The service is not available"


class DeadlineExceeded(RehueError):
    code, title = "DEADLINE_EXCEEDED", "The time for this request is over"


class Internal(RehueError):
    code, title = "INTERNAL", "The server failed"


HTTP_STATUS: dict[type[RehueError], HTTPStatus] = {
    InvalidImage: HTTPStatus.BAD_REQUEST,
    ImageTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    UnsupportedImage: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    InvalidParameter: HTTPStatus.UNPROCESSABLE_ENTITY,
    UnknownModel: HTTPStatus.NOT_FOUND,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Overloaded: HTTPStatus.TOO_MANY_REQUESTS,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    DeadlineExceeded: HTTPStatus.GATEWAY_TIMEOUT,
    Internal: HTTPStatus.INTERNAL_SERVER_ERROR,
}

GRPC_STATUS: dict[type[RehueError], grpc.StatusCode] = {
    InvalidImage: grpc.StatusCode.INVALID_ARGUMENT,
    ImageTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    UnsupportedImage: grpc.StatusCode.INVALID_ARGUMENT,
    InvalidParameter: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownModel: grpc.StatusCode.NOT_FOUND,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    Internal: grpc.StatusCode.INTERNAL,
}


def problem(error: RehueError, request_id: str) -> dict[str, object]:
    """The RFC 9457 body of an error."""
    return {
        "type": f"urn:rehue:problem:{error.code.lower().replace('_', '-')}",
        "title": error.title,
        "status": HTTP_STATUS[type(error)].value,
        "detail": error.detail,
        "request_id": request_id,
    }


def rpc_status(error: RehueError, request_id: str) -> status_pb2.Status:
    """The google.rpc.Status of an error, with its reason and when to try again."""
    details = [
        error_details_pb2.ErrorInfo(
            reason=error.code, domain="rehue", metadata={"request_id": request_id}
        )
    ]
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=GRPC_STATUS[type(error)].value[0], message=error.detail)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status
