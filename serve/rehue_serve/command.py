"""``rehue serve``: the server's word in the ``rehue`` command."""

import argparse
import logging
import sys


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``serve``; called by the ``rehue`` command."""
    parser = commands.add_parser(
        "serve",
        help="start everything on this machine",
        description="Starts Triton, Ray Serve and the application in the foreground.",
        epilog="Settings come from REHUE_* variables; --settings lists them.",
    )
    parser.add_argument("--settings", action="store_true", help="list the settings and end")
    parser.set_defaults(run=serve)


def serve(arguments: argparse.Namespace) -> int:
    """Runs the server; 0 after a stop that was asked for, 1 when the start fails."""
    # Imported here, so that `rehue --help` is quick, and the front stays small.
    if arguments.settings:
        from rehue_serve import settings

        print(settings.table())
        return 0
    from rehue_serve import processes

    ended = processes.run_behind_supervisor()
    return _serve() if ended is None else ended


def _serve() -> int:
    from rehue_serve import server, settings

    try:
        server.serve(settings.load())
    except settings.SettingsError as error:
        print(f"rehue: cannot start.\n{error}", file=sys.stderr)
        return 1
    except server.StartFailed as error:
        logging.getLogger(__name__).error("cannot start.\n%s", error)
        return 1
    return 0
