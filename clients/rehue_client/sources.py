"""The photographs that callers pass in."""

import os
from pathlib import Path
from typing import BinaryIO

from rehue_client.errors import SourceError

Source = str | os.PathLike[str] | bytes | BinaryIO


def read_source(source: Source) -> bytes:
    """Return the encoded image of a path, a bytes object or a binary file.

    Raises:
        SourceError: the file cannot be read.
    """
    if isinstance(source, bytes):
        return source
    try:
        if isinstance(source, (str, os.PathLike)):
            return Path(source).read_bytes()
        return source.read()
    except OSError as error:
        raise SourceError(f"cannot read {source}: {error.strerror}") from error
