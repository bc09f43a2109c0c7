"""The status of each domain error over HTTP and gRPC."""

from http import HTTPStatus

from grpc import StatusCode

from rehue_serve.errors import (
    DeadlineExceeded,
    ImageTooLarge,
    Internal,
    InvalidImage,
    InvalidParameter,
    Overloaded,
    QuotaExceeded,
    RehueError,
    Unauthenticated,
    Unavailable,
    UnknownModel,
    UnsupportedImage,
)

STATUSES: dict[type[RehueError], tuple[HTTPStatus, StatusCode]] = {
    InvalidImage: (HTTPStatus.BAD_REQUEST, StatusCode.INVALID_ARGUMENT),
    ImageTooLarge: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, StatusCode.RESOURCE_EXHAUSTED),
    UnsupportedImage: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, StatusCode.INVALID_ARGUMENT),
    InvalidParameter: (HTTPStatus.UNPROCESSABLE_ENTITY, StatusCode.INVALID_ARGUMENT),
    UnknownModel: (HTTPStatus.NOT_FOUND, StatusCode.NOT_FOUND),
    Unauthenticated: (HTTPStatus.UNAUTHORIZED, StatusCode.UNAUTHENTICATED),
    Overloaded: (HTTPStatus.TOO_MANY_REQUESTS, StatusCode.RESOURCE_EXHAUSTED),
    QuotaExceeded: (HTTPStatus.TOO_MANY_REQUESTS, StatusCode.RESOURCE_EXHAUSTED),
    Unavailable: (HTTPStatus.SERVICE_UNAVAILABLE, StatusCode.UNAVAILABLE),
    DeadlineExceeded: (HTTPStatus.GATEWAY_TIMEOUT, StatusCode.DEADLINE_EXCEEDED),
    Internal: (HTTPStatus.INTERNAL_SERVER_ERROR, StatusCode.INTERNAL),
}
HTTP_STATUS = {error: status for error, (status, _) in STATUSES.items()}
GRPC_STATUS = {error: code for error, (_, code) in STATUSES.items()}
