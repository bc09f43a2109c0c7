"""The context of a gRPC call: read its metadata and id, set its error."""

import contextlib

from ray.serve.grpc_util import RayServegRPCContext

from rehue_serve.errors import RehueError
from rehue_serve.observation import RequestRecord, observe_request
from rehue_serve.rpc_errors import build_rpc_status
from rehue_serve.statuses import GRPC_STATUS


def set_error(context: RayServegRPCContext, error: RehueError, request_id: str) -> None:
    """Set an error, with its details, as the status of a call."""
    context.set_code(GRPC_STATUS[type(error)])
    context.set_details(error.detail)
    status = build_rpc_status(error, request_id).SerializeToString()
    context.set_trailing_metadata([("grpc-status-details-bin", status)])


def observe_photograph(
    context: RayServegRPCContext, request_id: str, route: str = "rehue.v1.Colorizer/Colorize"
) -> contextlib.AbstractContextManager[RequestRecord]:
    """Observe one photograph; each photograph of a stream is observed on its own."""
    return observe_request("grpc", route, request_id, lambda: _collect_metadata(context))


def _collect_metadata(context: RayServegRPCContext) -> dict[str, str]:
    return {str(key): str(value) for key, value in context.invocation_metadata()}


def get_metadata(context: RayServegRPCContext, name: str) -> str | None:
    """Return a call's metadata of this name."""
    for key, value in context.invocation_metadata():
        if key == name:
            return str(value)
    return None


def get_request_id(context: RayServegRPCContext) -> str:
    """Return the id that Ray gave the call."""
    # Ray gives every request an id and returns it as trailing metadata.
    ids = (value for key, value in context.trailing_metadata() if key == "request_id")
    return next(ids, "")
