"""Domain errors as gRPC answers: status codes and google.rpc details."""

from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from rehue_serve.errors import RehueError, get_reason_name
from rehue_serve.statuses import GRPC_STATUS


async def abort_call(
    context: grpc.aio.ServicerContext[Any, Any], error: RehueError, request_id: str
) -> NoReturn:
    """End a call with an error before Ray handles it."""
    status = build_rpc_status(error, request_id).SerializeToString()
    metadata = (("grpc-status-details-bin", status), ("request_id", request_id))
    await context.abort(GRPC_STATUS[type(error)], error.detail, metadata)


def build_rpc_status(error: RehueError, request_id: str) -> status_pb2.Status:
    """Build an error's google.rpc.Status: an ErrorInfo and, where a retry can help, a RetryInfo."""
    details = [
        error_details_pb2.ErrorInfo(
            reason=get_reason_name(error), domain="rehue", metadata={"request_id": request_id}
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
