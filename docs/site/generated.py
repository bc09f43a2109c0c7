"""Pages of the reference that are made from the code."""

import argparse
import json
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import rehue_client
from rehue_client.v1 import rehue_pb2
from rehue_serve import http
from rehue_serve.settings import Settings


def generate_pages() -> dict[str, str]:
    """Return the text of each generated page, by its path."""
    return {
        "reference/options.md": describe_command(),
        "reference/sdk.md": describe_sdk(),
        "reference/http.md": describe_http(),
        "reference/grpc.md": describe_grpc(),
    }


def describe_command() -> str:
    """List the options of every subcommand, as `--help` prints them."""
    parser = argparse.ArgumentParser(prog="rehue")
    subparsers = parser.add_subparsers()
    for entry in entry_points(group="rehue.commands"):
        entry.load()(subparsers)
    parts = ["# Options of the command\n\nThe output of `rehue COMMAND --help`."]
    for name, subparser in sorted(subparsers.choices.items()):
        parts.append(f"## rehue {name}\n\n```text\n{subparser.format_help().rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def describe_sdk() -> str:
    """Name the public classes for mkdocstrings, which writes their docstrings."""
    errors = [name for name in rehue_client.__all__ if _is_error(getattr(rehue_client, name))]
    others = [
        name
        for name in rehue_client.__all__
        if name not in errors and isinstance(getattr(rehue_client, name), type)
    ]
    clients = sorted(others, key=lambda name: name not in ("Client", "AsyncClient"))
    sections = {
        "Clients and values": clients,
        "Errors": ["RehueError", *sorted(set(errors) - {"RehueError"})],
    }
    parts = ["# The SDK\n\nEverything that `rehue_client` exports."]
    for title, names in sections.items():
        parts.append(f"## {title}")
        parts.extend(f"::: rehue_client.{name}" for name in names)
    return "\n\n".join(parts) + "\n"


def _is_error(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)


def describe_http() -> str:
    """List the routes, parameters and answers of the OpenAPI description."""
    # Building the application reads nothing of the service but its settings.
    app = http.build_http_app(SimpleNamespace(settings=Settings()))  # type: ignore[arg-type]
    introduction = (
        "A running server has an interactive version of this page at `/docs` and its source at "
        "`/openapi.json`. [The API](api.md) explains limits, headers and errors."
    )
    parts = ["# HTTP", introduction]
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            parts.append(_describe_operation(f"{method.upper()} {path}", operation))
    return "\n\n".join(parts) + "\n"


def _describe_operation(title: str, operation: dict[str, Any]) -> str:
    text = f"## {title}\n\n{operation.get('description', '')}\n"
    if parameters := operation.get("parameters"):
        text += "\n| Parameter | In | Type | Default | Meaning |\n| --- | --- | --- | --- | --- |\n"
        for parameter in parameters:
            schema = parameter["schema"]
            text += (
                f"| `{parameter['name']}` | {parameter['in']} | {_describe_type(schema)} | "
                f"{json.dumps(schema['default']) if 'default' in schema else ''} | "
                f"{parameter.get('description', '')} |\n"
            )
    text += "\n| Status | Meaning |\n| --- | --- |\n"
    for status, answer in sorted(operation["responses"].items()):
        text += f"| {status} | {answer['description']} |\n"
    return text


def _describe_type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_describe_type(part) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    bounds = [
        f"{words} {schema[name]:g}"
        for name, words in (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"))
        if name in schema
    ]
    return " ".join([str(schema.get("type", "")), *bounds])


def describe_grpc() -> str:
    """Show the proto, whose comments are the reference."""
    service = rehue_pb2.DESCRIPTOR.services_by_name["Colorizer"]
    rows = "\n".join(
        f"| `{service.full_name}/{method.name}` | "
        f"{'stream of ' if method.client_streaming else ''}`{method.input_type.name}` | "
        f"{'stream of ' if method.server_streaming else ''}`{method.output_type.name}` |"
        for method in service.methods
    )
    proto = Path(rehue_pb2.__file__).with_name("rehue.proto").read_text()
    return (
        "# gRPC\n\nThe definition is `rehue_client/v1/rehue.proto`, in the client's package.\n\n"
        f"| Method | Request | Response |\n| --- | --- | --- |\n{rows}\n\n"
        f"```proto\n{proto.rstrip()}\n```\n"
    )
