"""The commands ``rehue serve`` and ``rehue batch``."""

import argparse
import logging
import os
import sys

from rehue_serve.batch.command import add_batch_command


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``serve`` and ``batch`` to the ``rehue`` command, which calls this function."""
    add_batch_command(commands)
    parser = commands.add_parser(
        "serve",
        help="start everything on this machine",
        description="Starts Triton, Ray Serve and the application in the foreground.",
        epilog="Every option is also an environment variable: REHUE_HTTP_PORT=8001 is the same "
        "as --http-port 8001.",
        add_help=False,
    )
    parser.add_argument("-h", "--help", action=_Help, nargs=0, help="show this help and exit")
    parser.add_argument(
        "--settings", action="store_true", help="list the variables as a table and exit"
    )
    parser.set_defaults(run=serve, takes_more=True)


class _Help(argparse.Action):
    """Prints the help with an option for each setting."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print it and exit."""
        from rehue_serve import options

        options.add_options(parser.add_argument_group("settings"))
        parser.print_help()
        parser.exit()


def serve(arguments: argparse.Namespace) -> int:
    """Run the server. Returns 0 after a requested stop, 1 when the start fails."""
    # Imported here: `rehue --help` stays quick and the supervisor process small.
    if arguments.settings:
        from rehue_serve import options

        print(options.format_settings_table())
        return 0
    if arguments.more:
        from rehue_serve import options, settings

        try:
            # Into the environment, which the replicas have too.
            os.environ.update(options.parse_options(arguments.more))
        except settings.SettingsError as error:
            print(f"rehue: {error}", file=sys.stderr)
            return 2
    from rehue_serve import processes

    ended = processes.run_behind_supervisor()
    return _run_server() if ended is None else ended


def _run_server() -> int:
    from rehue_serve import server, settings

    try:
        server.serve(settings.load_settings())
    except settings.SettingsError as error:
        print(f"rehue: cannot start.\n{error}", file=sys.stderr)
        return 1
    except server.StartFailed as error:
        logging.getLogger(__name__).error("cannot start.\n%s", error)
        return 1
    return 0
