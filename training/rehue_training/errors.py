"""The error for what the user can put right, and how the subcommands print it."""

import argparse
import functools
import sys
from collections.abc import Callable

Command = Callable[[argparse.Namespace], int]


class InputError(ValueError):
    """A problem with the photographs, the experiment or the files of a run.

    The message is one sentence. The `rehue` command prints it without a traceback.
    """


def print_errors(run: Command) -> Command:
    """Make a command print errors that the user can fix in one sentence, and return 2."""

    @functools.wraps(run)
    def run_and_print(arguments: argparse.Namespace) -> int:
        try:
            return run(arguments)
        except (InputError, OSError) as error:
            print(f"rehue: {error}", file=sys.stderr)
            return 2

    return run_and_print
