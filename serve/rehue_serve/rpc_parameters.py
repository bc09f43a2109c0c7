"""Read the parameters of gRPC messages."""

from typing import Any

from rehue_client.choices import WORDS
from rehue_client.v1 import rehue_pb2
from rehue_serve.choices import DEFAULT_QUALITY, DEFAULT_SIZE, Parameters
from rehue_serve.errors import InvalidParameter
from rehue_serve.rpc_edits import parse_edits
from rehue_serve.rpc_server import MALFORMED


def parse_parameters(request: rehue_pb2.ColorizeRequest) -> Parameters:
    """Read a request's parameters.

    Raises:
        InvalidParameter, UnknownModel: one is wrong, or the message is malformed.
    """
    if request.format == MALFORMED:
        raise InvalidParameter("The message is not a rehue.v1.ColorizeRequest.")
    return Parameters(
        model=request.model,
        strength=request.strength if request.HasField("strength") else 1.0,
        quality=request.quality if request.HasField("quality") else DEFAULT_QUALITY,
        **_read_words(request),
        edits=parse_edits(request.edits),
        reference=request.edits.reference,
    )


def _read_words(request: rehue_pb2.ColorizeRequest) -> dict[str, Any]:
    numbers = {name: getattr(request, name) for name in WORDS}
    return {name: WORDS[name].get(number, str(number)) for name, number in numbers.items()}


def parse_candidates_parameters(request: rehue_pb2.CandidatesRequest) -> Parameters:
    """Read the parameters of a request for candidates; raises as `parse_parameters`."""
    if request.size == MALFORMED:
        raise InvalidParameter("The message is not a rehue.v1.CandidatesRequest.")
    return Parameters(
        model=request.model,
        strength=request.strength if request.HasField("strength") else 1.0,
        edits=parse_edits(request.edits),
        reference=request.edits.reference,
        size=request.size if request.HasField("size") else DEFAULT_SIZE,
        more_looks=request.more_looks,
    )
