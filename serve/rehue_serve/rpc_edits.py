"""Edits and candidates as messages of the API."""

from rehue_client.choices import LOOKS
from rehue_client.v1 import rehue_pb2
from rehue_core.edits import Edits, Hint
from rehue_serve.candidates import Candidates
from rehue_serve.parameters import build_edits


def parse_edits(message: rehue_pb2.Edits) -> Edits:
    """Parse edits; the reference picture is left out.

    Raises:
        InvalidParameter: a value is out of range.
    """
    strength = message.palette_strength if message.HasField("palette_strength") else 1.0
    return build_edits(
        warmth=message.warmth,
        tint=message.tint,
        hints=tuple(Hint(hint.x, hint.y, hint.color) for hint in message.hints),
        palette=tuple(message.palette),
        palette_strength=strength,
        look=LOOKS.get(message.look, str(message.look)),
    )


def _build_edits(edits: Edits) -> rehue_pb2.Edits:
    return rehue_pb2.Edits(
        warmth=edits.warmth,
        tint=edits.tint,
        hints=[rehue_pb2.Hint(x=hint.x, y=hint.y, color=hint.color) for hint in edits.hints],
        palette=edits.palette,
        palette_strength=edits.palette_strength,
        look=f"LOOK_{edits.look}".upper(),
    )


def build_candidates_message(found: Candidates, request_id: str) -> rehue_pb2.CandidatesResponse:
    """Build the answer with the versions of a photograph."""
    return rehue_pb2.CandidatesResponse(
        candidates=[
            rehue_pb2.Candidate(
                name=candidate.name,
                image=candidate.data,
                strength=candidate.strength,
                edits=_build_edits(candidate.edits),
            )
            for candidate in found.candidates
        ],
        model=found.model,
        request_id=request_id,
        timings=rehue_pb2.Timings(**found.timings),
    )
