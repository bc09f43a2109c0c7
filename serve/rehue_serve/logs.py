"""Log lines: one a request and one for whatever goes wrong, as text or as JSON.

A line names the request, sizes and reasons; never a key, a file or a picture.
"""

import contextvars
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rehue_serve.settings import Settings

OURS = "rehue_serve"
LONGEST = 3000  # characters of a text in a line; a FIFO keeps lines of 4096 bytes whole

# The request that the code now works for; the lines it writes bear its name.
request_id = contextvars.ContextVar("request_id", default="")


class Json(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage()[:LONGEST],
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[-LONGEST // 2 :]
        return json.dumps(line)


class Text(logging.Formatter):
    """For eyes: the message and its fields."""

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname}: " if record.levelno >= logging.WARNING else ""
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        said = f"rehue: {level}{record.getMessage()}{fields}"
        return f"{said}\n{self.formatException(record.exc_info)}" if record.exc_info else said


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    name = request_id.get()
    return ({"request_id": name[:128]} if name else {}) | getattr(record, "fields", {})


class _Appended(logging.Handler):
    """Lines at the end of a file or a FIFO, whole, from several processes at once."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        # A FIFO that nobody empties loses lines instead of holding photographs up.
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o640)

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            os.write(self._file, self.format(record).encode() + b"\n")


def _chosen(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.startswith(OURS)


def start(settings: Settings) -> None:
    """Sends this process' lines where the settings say: ours, and the warnings of others."""
    # Ray puts a stream of its own in the place of sys.stderr.
    handler: logging.Handler = logging.StreamHandler(sys.__stderr__)
    missing = ""
    if settings.log_file is not None:
        try:
            handler = _Appended(settings.log_file)
        except OSError as error:
            missing = str(error)
    handler.setFormatter(Json() if settings.log_format == "json" else Text())
    handler.addFilter(_chosen)
    logging.getLogger().addHandler(handler)
    take_rays()
    ours = logging.getLogger(OURS)
    ours.setLevel(logging.INFO)
    if missing:
        ours.warning("REHUE_LOG_FILE cannot be used: %s", missing)


def take_rays() -> None:
    """Ray's lines too, which it prints by itself; again after its import, which begins anew."""
    for name in ("ray", "ray.serve"):
        logger = logging.getLogger(name)
        logger.propagate = True
        # Files stay; a stream of Ray's own would say the same again in another form.
        logger.handlers = [
            one
            for one in logger.handlers
            if isinstance(one, logging.FileHandler) or not isinstance(one, logging.StreamHandler)
        ]


@contextmanager
def gathered(directory: Path) -> Iterator[Path]:
    """A FIFO in the directory; what other processes write into it goes to this one's stderr."""
    path = directory / "log"
    os.mkfifo(path, 0o600)
    # Open for writing too, so that it never ends while writers come and go.
    fifo = os.open(path, os.O_RDWR)

    def relay() -> None:
        with os.fdopen(fifo, "rb", closefd=False) as lines:
            for line in lines:
                if line == b"\n":
                    return
                sys.stderr.write(line.decode(errors="replace"))
                sys.stderr.flush()

    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    try:
        yield path
    finally:
        os.write(fifo, b"\n")  # an empty line, which no process logs: the end
        thread.join()
        os.close(fifo)
