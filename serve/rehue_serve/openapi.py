"""The parts of the OpenAPI description that FastAPI cannot derive from the routes."""

from http import HTTPStatus
from typing import Any

from rehue_serve.bodies import PHOTOGRAPH_FIELD, REFERENCE_FIELD
from rehue_serve.errors import RehueError, get_reason_name
from rehue_serve.formats import MEDIA_TYPES, READ_NAMES
from rehue_serve.http_errors import PROBLEM_MEDIA_TYPE
from rehue_serve.parameters import EditParameters
from rehue_serve.statuses import HTTP_STATUS

# In addition to the key's scheme: a server without keys asks for none.
KEY_IS_OPTIONAL: dict[str, Any] = {"security": [{}]}


def describe_photograph_request(parameters: type[EditParameters]) -> dict[str, Any]:
    """Describe a request whose body is a photograph, or a form with it and these parameters."""
    file = {"type": "string", "format": "binary"}
    reference = {**file, "description": "A picture whose main colours are used as the palette."}
    fields = parameters.model_json_schema()["properties"]
    form = {
        "type": "object",
        "required": [PHOTOGRAPH_FIELD],
        "properties": {PHOTOGRAPH_FIELD: file, REFERENCE_FIELD: reference, **fields},
    }
    return {
        **KEY_IS_OPTIONAL,
        "parameters": [
            {
                "name": "X-Request-Timeout",
                "in": "header",
                "required": False,
                "description": "Seconds that the caller waits, the upload included.",
                "schema": {"type": "number", "exclusiveMinimum": 0},
            }
        ],
        "requestBody": {
            "required": True,
            "description": f"The photograph: {READ_NAMES}.",
            "content": {"image/*": {"schema": file}, "multipart/form-data": {"schema": form}},
        },
    }


_PROBLEM_FIELDS = {
    "type": "string",
    "title": "string",
    "status": "integer",
    "detail": "string",
    "request_id": "string",
}
_PROBLEM_SCHEMA = {
    "type": "object",
    "required": list(_PROBLEM_FIELDS),
    "properties": {name: {"type": kind} for name, kind in _PROBLEM_FIELDS.items()},
}


def _describe_problem(kind: type[RehueError], status: HTTPStatus) -> dict[str, Any]:
    example = {
        "type": f"urn:rehue:problem:{get_reason_name(kind).lower().replace('_', '-')}",
        "title": kind.title,
        "status": status.value,
        "detail": "What is wrong with this request, and what is allowed.",
        "request_id": "0b1e4c9e8f6f4d2f",
    }
    content = {PROBLEM_MEDIA_TYPE: {"schema": _PROBLEM_SCHEMA, "example": example}}
    return {"description": kind.title, "content": content}


PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    status.value: _describe_problem(kind, status) for kind, status in HTTP_STATUS.items()
}
PICTURE_RESPONSE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The photograph in colour.",
        "content": {media_type: {} for media_type in MEDIA_TYPES.values()},
    }
}
