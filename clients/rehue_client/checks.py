"""Checks before the first photograph, so that a batch is not colorized in vain."""

import errno
import tempfile
from pathlib import Path

from rehue_client.async_client import AsyncClient
from rehue_client.errors import (
    InvalidParameter,
    NotServing,
    RehueError,
    Unauthenticated,
    Unavailable,
    UnknownModel,
)
from rehue_client.picture import Options
from rehue_client.sources import encode_png

# A gray ramp of 32 x 32 pixels. Colorizing it costs the server a few milliseconds, and
# shows that the key, the model and the options are right and that a network answers.
PROBE = encode_png(memoryview(bytes(range(0, 256, 8)) * 32).cast("B", (32, 32)))

# Errors that every other photograph would get as well.
FATAL_ERRORS = (Unauthenticated, UnknownModel, Unavailable, NotServing)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def check_writable(folder: Path) -> None:
    """Check that files can be created in a folder, or in its nearest existing parent.

    Raises:
        OSError: they cannot; nothing is left behind.
    """
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".rehue-") as file:
            file.write(bytes(65536))
            file.flush()
    except OSError as error:
        raise OSError(error.errno, f"cannot write to {folder}: {error.strerror}") from error


def is_output_lost(error: OSError, folder: Path | None) -> bool:
    """Return whether, after ``error``, no picture can be written any more."""
    if error.errno in DISK_FULL:
        return True
    try:
        check_writable(folder or Path())
    except OSError:
        return True
    return False


async def check_server(client: AsyncClient, options: Options) -> str:
    """Colorize a tiny image with ``options``; return the model's name and version.

    Raises:
        RehueError: the server refuses it, or does not answer.
    """
    picture = await client.colorize(PROBE, **vars(options))
    return picture.model


def describe_error(error: RehueError) -> str:
    """Return a sentence for the terminal that names the option to change, if there is one."""
    options = {
        Unauthenticated: "see --api-key-file and REHUE_API_KEY",
        UnknownModel: "see --model and `rehue models`",
        InvalidParameter: "see --help",
        NotServing: "see --server",
    }
    hint = options.get(type(error))
    request = f"request {error.request_id}" if error.request_id else None
    notes = "; ".join(note for note in (hint, request) if note)
    text = str(error)
    if isinstance(error, Unauthenticated):  # the server's text names a header, not an option
        text = "the server requires an API key, or this one is not valid"
    return f"{text} ({notes})" if notes else text
