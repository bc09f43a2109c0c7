"""Domain errors, independent of the protocol.

RehueError
|- InvalidImage        not an image, broken or truncated
|- ImageTooLarge       over the byte or pixel limit
|- UnsupportedImage    an image format that is not supported
|- InvalidParameter    a parameter out of range
|- UnknownModel
|- Unauthenticated     API key missing or wrong
|- Overloaded          retry after `retry_after`
|  `- QuotaExceeded    of the caller's API key
|- Unavailable         no Triton serves the model, or the server is stopping; retry after
|                      `retry_after`
|- DeadlineExceeded
`- Internal            a fault of the server; its cause is in the log, never in the message

`rehue_serve.statuses` has their statuses, `http_errors` and `rpc_errors` their answers.
"""

from typing import ClassVar

from rehue_client.v1 import rehue_pb2


class RehueError(Exception):
    """A request that is not answered with a picture. ``str()`` is a sentence for the caller.

    Attributes:
        reason: the error's reason in the API, from the proto.
        title: a short summary that is the same for every error of the class.
        detail: what went wrong this time.
        retry_after: seconds after which a retry can succeed; None where it cannot.
    """

    reason: ClassVar[rehue_pb2.ErrorReason]
    title: ClassVar[str]

    @property
    def outcome(self) -> str:
        """The error's name in metrics and logs."""
        return get_reason_name(self)

    def __init__(self, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after


class InvalidImage(RehueError):
    reason, title = rehue_pb2.INVALID_IMAGE, "The image cannot be read"


class ImageTooLarge(RehueError):
    reason, title = rehue_pb2.IMAGE_TOO_LARGE, "The image is too large"


class UnsupportedImage(RehueError):
    reason, title = rehue_pb2.UNSUPPORTED_IMAGE, "This image format is not supported"


class InvalidParameter(RehueError):
    reason, title = rehue_pb2.INVALID_PARAMETER, "A parameter is invalid"


class UnknownModel(RehueError):
    reason, title = rehue_pb2.UNKNOWN_MODEL, "There is no such model"


class Unauthenticated(RehueError):
    reason, title = rehue_pb2.UNAUTHENTICATED, "An API key is required"


class Overloaded(RehueError):
    reason, title = rehue_pb2.OVERLOADED, "The server is busy"


class QuotaExceeded(Overloaded):
    """Clients wait as for Overloaded; metrics name it apart, since the server is not at fault."""

    title = "The API key's quota is used up"
    outcome = "QUOTA"


class Unavailable(RehueError):
    reason, title = rehue_pb2.UNAVAILABLE, "The service is unavailable"


class DeadlineExceeded(RehueError):
    reason, title = rehue_pb2.DEADLINE_EXCEEDED, "The request timed out"


class Internal(RehueError):
    reason, title = rehue_pb2.INTERNAL, "The server failed"


def get_reason_name(error: RehueError | type[RehueError]) -> str:
    """Return the reason as clients see it, such as ``INVALID_IMAGE``."""
    return rehue_pb2.ErrorReason.Name(error.reason)
