"""What can go wrong, as one tree.

::

    RehueError
    ├── SourceError           the photograph could not be read on this side
    ├── RequestError          refused as it stands, never sent again
    │   ├── InvalidImage          not an image, broken or cut short
    │   ├── ImageTooLarge         over the server's limit of bytes or pixels
    │   ├── UnsupportedImage      a kind of image that is not read
    │   ├── InvalidParameter      a parameter out of its range
    │   ├── UnknownModel          the server has no such model
    │   └── Unauthenticated       the key is missing or wrong
    ├── ServiceError          the server's side, not the photograph's fault
    │   ├── Overloaded            too much to do: sent again
    │   ├── Unavailable           not reached, or not ready: sent again
    │   ├── Internal              a fault of the server's own
    │   └── ProtocolError         what answered does not speak this API
    └── DeadlineExceeded      the time given was not enough
"""

from typing import ClassVar


class RehueError(Exception):
    """The root of everything that the client raises about a call.

    Attributes:
        request_id: the server's name for the request, for its logs; if it gave one.
        retry_after: seconds that the server asks to wait; if it said so.
    """

    reason: ClassVar[str] = ""
    repeatable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, request_id: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.retry_after = retry_after


class SourceError(RehueError):
    """The photograph could not be read on this side; nothing was sent."""


class RequestError(RehueError):
    """The server refused the request; the same request cannot succeed."""


class InvalidImage(RequestError):
    """The bytes are not an image, or a broken or shortened one."""

    reason = "INVALID_IMAGE"


class ImageTooLarge(RequestError):
    """The image is over the server's limit of bytes or of pixels."""

    reason = "IMAGE_TOO_LARGE"


class UnsupportedImage(RequestError):
    """The server does not read this kind of image."""

    reason = "UNSUPPORTED_IMAGE"


class InvalidParameter(RequestError):
    """A parameter is out of its range."""

    reason = "INVALID_PARAMETER"


class UnknownModel(RequestError):
    """The server has no model of this name."""

    reason = "UNKNOWN_MODEL"


class Unauthenticated(RequestError):
    """The server asks for a key, and none or a wrong one was sent."""

    reason = "UNAUTHENTICATED"


class ServiceError(RehueError):
    """The server could not do it; the photograph is not to blame."""


class Overloaded(ServiceError):
    """The server has more to do than it can take on."""

    reason = "OVERLOADED"
    repeatable = True


class Unavailable(ServiceError):
    """No server was reached, none was ready, or the connection broke."""

    reason = "UNAVAILABLE"
    repeatable = True


class Internal(ServiceError):
    """The server reports a fault of its own."""

    reason = "INTERNAL"


class ProtocolError(ServiceError):
    """What answered does not speak this API: perhaps the wrong address."""


class DeadlineExceeded(RehueError):
    """The time given to the call was not enough."""

    reason = "DEADLINE_EXCEEDED"


BY_REASON: dict[str, type[RehueError]] = {
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
