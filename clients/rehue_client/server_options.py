"""Options of the commands that call a server."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from rehue_client.client import Client
from rehue_client.retries import Retries
from rehue_client.session import DEFAULT_TIMEOUT
from rehue_client.target import DEFAULT_TARGET, Tls, read_targets_from_environment

C = TypeVar("C")


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which server to call, and how."""
    parser.add_argument(
        "--server", action="append", metavar="URL",
        help=f"grpc://, grpcs://, http:// or https://HOST:PORT; may be given several times "
        f"(default: REHUE_SERVER, or {DEFAULT_TARGET})",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=_parse_timeout, default=DEFAULT_TIMEOUT, metavar="SECONDS",
        help="timeout for one photograph, including retries and waiting for a server that "
        f"restarts (default: {DEFAULT_TIMEOUT:.0f})",
    )  # fmt: skip
    parser.add_argument(
        "--api-key-file", type=Path, metavar="FILE",
        help="file with the API key (default: the key in REHUE_API_KEY)",
    )  # fmt: skip
    parser.add_argument(
        "--ca", metavar="FILE", help="certificate authorities to trust, for grpcs:// and https://"
    )


def get_servers(namespace: argparse.Namespace) -> list[str]:
    """Return the addresses of the servers to call."""
    return list(namespace.server or read_targets_from_environment())


def create_client(kind: Callable[..., C], namespace: argparse.Namespace, **options: Any) -> C:
    """Create a client from the options.

    Raises:
        ValueError: an address or the API key is not valid.
        OSError: the key file cannot be read.
    """
    return kind(
        get_servers(namespace),
        api_key=_read_api_key(namespace.api_key_file),
        timeout=namespace.timeout,
        retries=Retries(patience=max(Retries().patience, namespace.timeout)),
        tls=Tls(ca=namespace.ca),
        **options,
    )


def describe_not_ready(servers: list[str]) -> str:
    """Return a sentence for servers of which none is ready."""
    certificate = any(server.startswith(("https:", "grpcs:")) for server in servers)
    return (
        f"no server is ready at {', '.join(servers)}: "
        "start one with `rehue serve`, or name one with --server"
        + ("; for a certificate of one's own, see --ca" if certificate else "")
    )


def check_ready(client: Client, namespace: argparse.Namespace) -> None:
    """Check that a server is ready, instead of waiting for one until the timeout.

    Raises:
        ValueError: none is.
    """
    if not client.ready():
        raise ValueError(describe_not_ready(get_servers(namespace)))


def report_error(reason: object) -> int:
    """Print an error and return the exit code for it."""
    print(f"rehue: {_describe_os_error(reason)}", file=sys.stderr)
    return 2


def _describe_os_error(reason: object) -> object:
    """Return the text of an OSError without its number, and any other reason as it is."""
    if not isinstance(reason, OSError) or reason.strerror is None:
        return reason
    if reason.filename is None:
        return reason.strerror
    return f"{os.fsdecode(reason.filename)}: {reason.strerror}"


def _parse_timeout(text: str) -> float:
    try:
        timeout = float(text)
    except ValueError:
        timeout = 0.0
    if not timeout > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return timeout


def _read_api_key(path: Path | None) -> str | None:
    """Return the key in a file, or None for the one in REHUE_API_KEY."""
    if path is None:
        return None
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if len(keys) != 1:
        raise ValueError(f"{path} has {len(keys)} keys; --api-key-file needs a file with one")
    return keys[0]
