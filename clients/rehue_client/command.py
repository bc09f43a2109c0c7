"""The `rehue` command."""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rehue_client import __version__
from rehue_client.async_client import AsyncClient
from rehue_client.batch import Batch
from rehue_client.client import Client
from rehue_client.errors import RehueError
from rehue_client.outputs import list_jobs
from rehue_client.picture import FORMATS, Options
from rehue_client.session import DEFAULT_TIMEOUT
from rehue_client.target import DEFAULT_TARGET, Tls, read_targets_from_environment

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

C = TypeVar("C")

# Default server of `rehue models`: models are listed over HTTP only.
DEFAULT_HTTP_TARGET = "http://127.0.0.1:8000"
# A missing module of these packages is a bug, not an extra that is not installed.
OUR_PACKAGES = {"rehue_client", "rehue_serve", "rehue_training"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="rehue", description="Colorizes black-and-white photographs."
    )
    parser.add_argument("--version", action="version", version=f"rehue {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for entry in entry_points(group="rehue.commands"):
        _load_commands(entry, subparsers)
    namespace = parser.parse_args(arguments)
    try:
        return int(namespace.run(namespace))
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        return _report_missing_extra(namespace.extra, error)


def add_commands(subparsers: "Subparsers") -> None:
    """Add the client's commands, ``colorize`` and ``models``."""
    colorize = subparsers.add_parser(
        "colorize", help="colorize photographs and folders",
        description="Colorizes photographs, and folders of them recursively.",
    )  # fmt: skip
    _add_colorize_options(colorize)
    models = subparsers.add_parser("models", help="list the server's models")
    _add_server_options(models, DEFAULT_HTTP_TARGET)
    models.set_defaults(run=_run_models)


def _load_commands(entry: EntryPoint, subparsers: "Subparsers") -> None:
    """Add a package's commands, or a hint if its extra is not installed."""
    before = set(subparsers.choices)
    try:
        entry.load()(subparsers)
    except ModuleNotFoundError as error:
        if _is_our_package(error):
            raise
        missing = error
        parser = subparsers.add_parser(
            entry.name, help=f"needs the extra rehue[{entry.name}]",
            # Treat every following word as a positional argument, so that the hint is printed.
            prefix_chars="\0", add_help=False,
        )  # fmt: skip
        parser.add_argument("rest", nargs="*")
        parser.set_defaults(run=lambda namespace: _report_missing_extra(namespace.extra, missing))
    for name in set(subparsers.choices) - before:
        parser = subparsers.choices[name]
        parser.set_defaults(extra=parser.get_default("extra") or entry.name)


def _is_our_package(error: ModuleNotFoundError) -> bool:
    return (error.name or "").partition(".")[0] in OUR_PACKAGES


def _report_missing_extra(extra: str, error: ModuleNotFoundError) -> int:
    if _is_our_package(error):
        raise error
    print(
        f"rehue: this needs {error.name}, which is not installed: pip install 'rehue[{extra}]'",
        file=sys.stderr,
    )
    return 2


def _add_colorize_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files and folders")
    parser.add_argument(
        "-o", "--out", required=True, type=Path, metavar="OUT",
        help="output folder; for a single photograph also a file name",
    )  # fmt: skip
    _add_server_options(parser, DEFAULT_TARGET)
    parser.add_argument("--model", help="name of the model (default: the server's)")
    parser.add_argument(
        "--strength", type=float, default=1.0, metavar="0..2",
        help="strength of the colours (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="auto",
        help="image format of the output (default: that of the source)",
    )
    parser.add_argument("--quality", type=int, metavar="1..100", help="of JPEG and WebP")
    parser.add_argument(
        "--concurrency", type=_parse_count, default=8, metavar="N",
        help="photographs in flight at a time (default: 8)",
    )  # fmt: skip
    parser.add_argument(
        "--resume", action="store_true", help="skip photographs whose output exists"
    )
    parser.set_defaults(run=_run_colorize)


def _add_server_options(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--server", action="append", metavar="URL",
        help=f"grpc://, grpcs://, http:// or https://HOST:PORT; may be given several times "
        f"(default: REHUE_SERVER, or {default})",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=float, default=DEFAULT_TIMEOUT, metavar="SECONDS",
        help="timeout for one photograph, retries and waiting for a restarting server "
        f"included (default: {DEFAULT_TIMEOUT:.0f})",
    )  # fmt: skip
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="file with the API key (default: REHUE_API_KEY)",
    )
    parser.add_argument(
        "--ca", metavar="FILE", help="certificate authorities to trust, for grpcs:// and https://"
    )
    parser.set_defaults(default_server=default)


def _parse_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def _get_servers(namespace: argparse.Namespace) -> list[str]:
    if namespace.server:
        return list(namespace.server)
    return read_targets_from_environment(namespace.default_server)


def _get_api_key(namespace: argparse.Namespace) -> str | None:
    if namespace.api_key_file is not None:
        return str(namespace.api_key_file.read_text(encoding="utf-8").strip())
    return None  # the client reads REHUE_API_KEY


def _run_colorize(namespace: argparse.Namespace) -> int:
    try:
        options = Options(
            model=namespace.model,
            strength=namespace.strength,
            format=namespace.format,
            quality=namespace.quality,
        )
        jobs = list_jobs(namespace.paths, namespace.out, format=namespace.format)
        client = _create_client(AsyncClient, namespace)
    except (ValueError, OSError) as error:
        return _report_error(error)
    if not jobs:
        return _report_error("no photographs found")
    batch = Batch(jobs, options, concurrency=namespace.concurrency, resume=namespace.resume)
    return asyncio.run(_run_batch(batch, client, _get_servers(namespace)))


async def _run_batch(batch: Batch, client: AsyncClient, servers: list[str]) -> int:
    start = time.monotonic()
    async with client:
        try:
            ready = await client.ready()
        except (RehueError, OSError) as error:
            return _report_error(error)
        if not ready:
            return _report_error(
                f"no server is ready at {', '.join(servers)}: "
                "start one with `rehue serve`, or name one with --server"
            )
        try:
            await batch.run(client)
        finally:
            batch.report(time.monotonic() - start)
    return 1 if batch.failures else 0


def _run_models(namespace: argparse.Namespace) -> int:
    try:
        with _create_client(Client, namespace) as client:
            for model in client.models():
                default = "  default" if model.default else ""
                print(f"{model.name:12} {model.version:4} {model.state}{default}")
    except (ValueError, OSError, RehueError) as error:
        return _report_error(error)
    return 0


def _create_client(kind: Callable[..., C], namespace: argparse.Namespace) -> C:
    return kind(
        _get_servers(namespace),
        api_key=_get_api_key(namespace),
        timeout=namespace.timeout,
        tls=Tls(ca=namespace.ca),
    )


def _report_error(reason: object) -> int:
    print(f"rehue: {reason}", file=sys.stderr)
    return 2
