"""Log lines, as text or JSON: one per request and one per fault.

A line holds the request's id, sizes and reasons; never keys, file contents or pictures.
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

PACKAGE = "rehue_serve"
MAX_TEXT = 3000  # characters of a text in a line; writes to a FIFO are atomic up to 4096 bytes

# Id of the current request, added to every line logged for it.
request_id = contextvars.ContextVar("request_id", default="")


class JsonFormatter(logging.Formatter):
    """Formats each record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage()[:MAX_TEXT],
            **_collect_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[-MAX_TEXT // 2 :]
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """Formats each record for people: the message and its fields."""

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname}: " if record.levelno >= logging.WARNING else ""
        fields = "".join(f" {name}={value}" for name, value in _collect_fields(record).items())
        line = f"rehue: {level}{record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _collect_fields(record: logging.LogRecord) -> dict[str, Any]:
    current = request_id.get()
    return ({"request_id": current[:128]} if current else {}) | getattr(record, "fields", {})


class _AppendHandler(logging.Handler):
    """Appends whole lines to a file or FIFO that several processes share."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        # Non-blocking: when nobody reads a FIFO, lines are dropped and no request waits.
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o640)

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            os.write(self._file, self.format(record).encode() + b"\n")


def _is_wanted(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.startswith(PACKAGE)


def configure_logging(settings: Settings) -> None:
    """Send this process's log lines where the settings say.

    These are the lines of this package, and the warnings of other packages.
    """
    # Ray replaces sys.stderr by a stream of its own.
    handler: logging.Handler = logging.StreamHandler(sys.__stderr__)
    problem = ""
    if settings.log_file is not None:
        try:
            handler = _AppendHandler(settings.log_file)
        except OSError as error:
            problem = str(error)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    handler.addFilter(_is_wanted)
    logging.getLogger().addHandler(handler)
    redirect_ray_logs()
    package = logging.getLogger(PACKAGE)
    package.setLevel(logging.INFO)
    if problem:
        package.warning("REHUE_LOG_FILE cannot be used: %s", problem)


def redirect_ray_logs() -> None:
    """Pass Ray's records to the root logger instead of Ray's own streams.

    Call it again after `import ray` and `ray.init`, which install those streams anew.
    """
    for name in ("ray", "ray.serve"):
        logger = logging.getLogger(name)
        logger.propagate = True
        # Ray's log files stay; its streams would print every record a second time.
        logger.handlers = [
            handler
            for handler in logger.handlers
            if isinstance(handler, logging.FileHandler)
            or not isinstance(handler, logging.StreamHandler)
        ]


@contextmanager
def relay_log_lines(directory: Path) -> Iterator[Path]:
    """Create a FIFO in the directory and copy what other processes write to it to stderr.

    Yields:
        The FIFO's path.
    """
    path = directory / "log"
    os.mkfifo(path, 0o600)
    # Opened for writing too, so that reading does not end when the last writer closes it.
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
        os.write(fifo, b"\n")  # an empty line, which no process logs, ends the thread
        thread.join()
        os.close(fifo)
