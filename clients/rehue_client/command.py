"""The `rehue` command: photographs and folders, from a terminal."""

import argparse
import asyncio
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rehue_client.async_client import AsyncClient
from rehue_client.batch import Batch
from rehue_client.client import Client
from rehue_client.errors import RehueError
from rehue_client.picture import FORMATS, Options
from rehue_client.plan import plan
from rehue_client.target import DEFAULT, Tls

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

C = TypeVar("C")

# Where `rehue models` looks: only HTTP lists models.
LISTING = "http://127.0.0.1:8000"
# A module of ours that is missing is a fault, not an extra left out.
OURS = {"rehue_client", "rehue_serve", "rehue_training"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; gives its exit code."""
    parser = argparse.ArgumentParser(
        prog="rehue", description="Gives black-and-white photographs their colours back."
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for entry in entry_points(group="rehue.commands"):
        _add(entry, subparsers)
    namespace = parser.parse_args(arguments)
    try:
        return int(namespace.run(namespace))
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        return _not_installed(namespace.extra, error)


def add_commands(subparsers: "Subparsers") -> None:
    """The client's own words: ``colorize`` and ``models``."""
    colorize = subparsers.add_parser(
        "colorize", help="colorize photographs and folders of them",
        description="Colorizes photographs, and folders of them with all they hold.",
    )  # fmt: skip
    _add_colorize(colorize)
    models = subparsers.add_parser("models", help="list the server's models")
    _add_server(models, LISTING)
    models.set_defaults(run=_models)


def _add(entry: EntryPoint, subparsers: "Subparsers") -> None:
    """A package's commands; in the place of one that lacks its extra, a hint."""
    before = set(subparsers.choices)
    try:
        entry.load()(subparsers)
    except ModuleNotFoundError as error:
        if _is_ours(error):
            raise
        missing = error
        parser = subparsers.add_parser(
            entry.name, help=f"needs the extra rehue[{entry.name}]",
            # No word that follows is an option to it: whatever they are, it answers.
            prefix_chars="\0", add_help=False,
        )  # fmt: skip
        parser.add_argument("rest", nargs="*")
        parser.set_defaults(run=lambda namespace: _not_installed(namespace.extra, missing))
    for name in set(subparsers.choices) - before:
        parser = subparsers.choices[name]
        parser.set_defaults(extra=parser.get_default("extra") or entry.name)


def _is_ours(error: ModuleNotFoundError) -> bool:
    return (error.name or "").partition(".")[0] in OURS


def _not_installed(extra: str, error: ModuleNotFoundError) -> int:
    if _is_ours(error):
        raise error
    print(
        f"rehue: this needs {error.name}, which is not installed: pip install 'rehue[{extra}]'",
        file=sys.stderr,
    )
    return 2


def _add_colorize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files and folders")
    parser.add_argument(
        "-o", "--out", required=True, type=Path, metavar="OUT",
        help="folder for the pictures, or the file for a single one",
    )  # fmt: skip
    _add_server(parser, DEFAULT)
    parser.add_argument("--model", help="name of the model (default: the server's)")
    parser.add_argument(
        "--strength", type=float, default=1.0, metavar="0..2",
        help="how strong the colours are (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=FORMATS, default="auto", help="of the pictures (default: as the input)"
    )
    parser.add_argument("--quality", type=int, metavar="1..100", help="of JPEG and WebP")
    parser.add_argument(
        "--concurrency", type=_count, default=8, metavar="N",
        help="photographs under way at a time (default: 8)",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="skip what is already there")
    parser.set_defaults(run=_colorize)


def _add_server(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--server", action="append", metavar="URL",
        help=f"grpc://, grpcs://, http:// or https://HOST:PORT; several share the work "
        f"(default: REHUE_SERVER, or {default})",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS",
        help="for one photograph, retries included (default: 60)",
    )  # fmt: skip
    parser.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="holds the key (default: REHUE_API_KEY)"
    )
    parser.add_argument("--ca", metavar="FILE", help="certificates to trust, of grpcs and https")
    parser.set_defaults(default_server=default)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def _servers(namespace: argparse.Namespace) -> list[str]:
    if namespace.server:
        return list(namespace.server)
    named = re.split(r"[,\s]+", os.environ.get("REHUE_SERVER", "").strip(", \t"))
    return [url for url in named if url] or [namespace.default_server]


def _api_key(namespace: argparse.Namespace) -> str | None:
    if namespace.api_key_file is not None:
        return str(namespace.api_key_file.read_text(encoding="utf-8").strip())
    return os.environ.get("REHUE_API_KEY") or None


def _colorize(namespace: argparse.Namespace) -> int:
    try:
        options = Options(
            model=namespace.model,
            strength=namespace.strength,
            format=namespace.format,
            quality=namespace.quality,
        )
        steps = plan(namespace.paths, namespace.out, format=namespace.format)
        client = _client(AsyncClient, namespace)
    except (ValueError, OSError) as error:
        return _refused(error)
    if not steps:
        return _refused("no photographs found")
    batch = Batch(steps, options, concurrency=namespace.concurrency, resume=namespace.resume)
    return asyncio.run(_run(batch, client, _servers(namespace)))


async def _run(batch: Batch, client: AsyncClient, servers: list[str]) -> int:
    start = time.monotonic()
    async with client:
        try:
            ready = await client.ready()
        except (RehueError, OSError) as error:
            return _refused(error)
        if not ready:
            return _refused(
                f"no server is ready at {', '.join(servers)}: "
                "start one with `rehue serve`, or name one with --server"
            )
        try:
            await batch.run(client)
        finally:
            batch.report(time.monotonic() - start)
    return 1 if batch.failures else 0


def _models(namespace: argparse.Namespace) -> int:
    try:
        with _client(Client, namespace) as client:
            for model in client.models():
                default = "  default" if model.default else ""
                print(f"{model.name:12} {model.version:4} {model.state}{default}")
    except (ValueError, OSError, RehueError) as error:
        return _refused(error)
    return 0


def _client(kind: Callable[..., C], namespace: argparse.Namespace) -> C:
    return kind(
        _servers(namespace),
        api_key=_api_key(namespace),
        timeout=namespace.timeout,
        tls=Tls(ca=namespace.ca),
    )


def _refused(reason: object) -> int:
    print(f"rehue: {reason}", file=sys.stderr)
    return 2
