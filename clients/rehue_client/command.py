"""The `rehue` command."""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

import shtab

from rehue_client import __version__
from rehue_client.candidates_command import add_candidates_command
from rehue_client.checks import describe_error
from rehue_client.client import Client
from rehue_client.colorize_command import add_colorize_command
from rehue_client.compare_command import add_compare_command
from rehue_client.errors import RehueError
from rehue_client.server_options import (
    add_server_options,
    check_ready,
    create_client,
    report_error,
)

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

# A missing module of these packages is a bug, not an extra that is not installed.
OUR_PACKAGES = {"rehue_client", "rehue_serve", "rehue_training"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="rehue", description="Colorizes black-and-white photographs."
    )
    parser.add_argument("--version", action="version", version=f"rehue {__version__}")
    shtab.add_argument_to(
        parser, "--print-completion", help="print a script that completes this command in a shell"
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    # By name: the client's distribution and the whole one may both be installed.
    for entry in {entry.name: entry for entry in entry_points(group="rehue.commands")}.values():
        _load_commands(entry, subparsers)
    namespace, more = parser.parse_known_args(arguments)
    if more and not getattr(namespace, "takes_more", False):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    namespace.more = more
    try:
        return int(namespace.run(namespace))
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        return _report_missing_extra(namespace.extra, error)


def add_commands(subparsers: "Subparsers") -> None:
    """Add the client's commands: ``colorize``, ``candidates``, ``compare`` and ``models``."""
    colorize = subparsers.add_parser(
        "colorize", help="colorize photographs and folders",
        description="Colorizes photographs, and folders of them recursively.",
    )  # fmt: skip
    add_colorize_command(colorize)
    add_compare_command(
        subparsers.add_parser("compare", help="put a photograph and its picture side by side")
    )
    candidates = subparsers.add_parser(
        "candidates", help="make several versions of a photograph to choose from",
        description="Colorizes one photograph in several versions that differ visibly.",
    )  # fmt: skip
    add_candidates_command(candidates)
    models = subparsers.add_parser("models", help="list the server's models")
    add_server_options(models)
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
        f"rehue: this needs {error.name}, which is not installed: "
        f"pip install '.[{extra}]' in the repository",
        file=sys.stderr,
    )
    return 2


def _run_models(namespace: argparse.Namespace) -> int:
    try:
        with create_client(Client, namespace) as client:
            check_ready(client, namespace)
            for model in client.models():
                default = "  default" if model.default else ""
                print(f"{model.name:12} {model.version:4} {model.state}{default}")
                if model.description:
                    print(f"             {model.description}")
    except RehueError as error:
        return report_error(describe_error(error))
    except (ValueError, OSError) as error:
        return report_error(error)
    return 0
