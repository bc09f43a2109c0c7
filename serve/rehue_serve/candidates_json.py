"""The JSON of ``/v1/candidates``."""

import base64
from typing import Any

from pydantic import BaseModel, Field

from rehue_serve.candidates import Candidates


class CandidateAnswer(BaseModel):
    """One version."""

    name: str = Field(description='For example "warmer".')
    edits: dict[str, Any] = Field(
        description="The parameters that make it, as a document that can be saved."
    )
    media_type: str
    image: str = Field(description="The picture, in Base64.")


class CandidatesAnswer(BaseModel):
    """The versions, which differ visibly; the first one is the one that was asked for."""

    model: str = Field(description="Name and version.")
    candidates: list[CandidateAnswer]


def build_candidates_answer(found: Candidates) -> CandidatesAnswer:
    """Build the answer with the versions of a photograph."""
    return CandidatesAnswer(
        model=found.model,
        candidates=[
            CandidateAnswer(
                name=candidate.name,
                edits=candidate.edits.to_document(candidate.strength),
                media_type="image/jpeg",
                image=base64.b64encode(candidate.data).decode(),
            )
            for candidate in found.candidates
        ],
    )
