"""The exceptions of the client.

::

    RehueError
    ├── SourceError           the photograph could not be read on the client's side
    ├── RequestError          the server refused the request; never retried
    │   ├── InvalidImage          not an image, corrupt or truncated
    │   ├── ImageTooLarge         over the limit of bytes or pixels
    │   ├── UnsupportedImage      an image format that the server does not read
    │   ├── InvalidParameter      a parameter is out of range
    │   ├── UnknownModel          the server has no such model
    │   └── Unauthenticated       the API key is missing or wrong
    ├── ServiceError          a problem of the server, not of the photograph
    │   ├── Overloaded            too many requests; retried
    │   ├── Unavailable           not reachable or not ready; retried
    │   ├── Internal              an internal error of the server
    │   └── ProtocolError         the answer is not Rehue's
    │       └── NotServing            not found: the server is starting, or the address
    │                                 is wrong; retried for some seconds
    └── DeadlineExceeded      the timeout has passed
"""

from typing import ClassVar

from rehue_client.v1 import rehue_pb2
from rehue_client.v1.rehue_pb2 import ErrorReason


class RehueError(Exception):
    """Base class of the client's exceptions.

    Attributes:
        reason: the name of the error's reason in the API (`ErrorReason` in the proto);
            empty for errors that the server does not report.
        request_id: the server's ID of the request, as in its logs; None if unknown.
        retry_after: seconds that the server asks to wait; None if it does not.
        retryable: whether the client retries the request.
    """

    reason: ClassVar[str] = ""
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, request_id: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.retry_after = retry_after


class SourceError(RehueError):
    """The photograph could not be read; nothing was sent."""


class RequestError(RehueError):
    """The server refused the request; the same request cannot succeed."""


class InvalidImage(RequestError):
    """The data is not an image, or the image is corrupt or truncated."""

    reason = ErrorReason.Name(rehue_pb2.INVALID_IMAGE)


class ImageTooLarge(RequestError):
    """The image exceeds the limit of bytes or pixels."""

    reason = ErrorReason.Name(rehue_pb2.IMAGE_TOO_LARGE)


class UnsupportedImage(RequestError):
    """The server does not read this image format."""

    reason = ErrorReason.Name(rehue_pb2.UNSUPPORTED_IMAGE)


class InvalidParameter(RequestError):
    """A parameter is out of range."""

    reason = ErrorReason.Name(rehue_pb2.INVALID_PARAMETER)


class UnknownModel(RequestError):
    """The server has no model of this name."""

    reason = ErrorReason.Name(rehue_pb2.UNKNOWN_MODEL)


class Unauthenticated(RequestError):
    """The server requires an API key, and none or a wrong one was sent."""

    reason = ErrorReason.Name(rehue_pb2.UNAUTHENTICATED)


class ServiceError(RehueError):
    """The server failed; the photograph is not the cause."""


class Overloaded(ServiceError):
    """The server has too many requests."""

    reason = ErrorReason.Name(rehue_pb2.OVERLOADED)
    retryable = True


class Unavailable(ServiceError):
    """No server was reachable, none was ready, or the connection broke."""

    reason = ErrorReason.Name(rehue_pb2.UNAVAILABLE)
    retryable = True


class Internal(ServiceError):
    """The server reports an internal error."""

    reason = ErrorReason.Name(rehue_pb2.INTERNAL)


class ProtocolError(ServiceError):
    """The answer does not follow Rehue's API; the address may be wrong."""


class NotServing(ProtocolError):
    """The address answers "not found" (404, NOT_FOUND), but not in Rehue's format.

    A server that is starting does that for some seconds, a wrong address forever.
    """

    retryable = True


class DeadlineExceeded(RehueError):
    """The call's timeout has passed."""

    reason = ErrorReason.Name(rehue_pb2.DEADLINE_EXCEEDED)


ERRORS_BY_REASON: dict[str, type[RehueError]] = {
    kind.reason: kind
    for kind in (
        InvalidImage,
        ImageTooLarge,
        UnsupportedImage,
        InvalidParameter,
        UnknownModel,
        Unauthenticated,
        Overloaded,
        Unavailable,
        Internal,
        DeadlineExceeded,
    )
}
