"""API keys: who may use the server."""

import asyncio
import contextlib
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from rehue_serve.errors import Unauthenticated, Unavailable

log = logging.getLogger(__name__)

RELOAD_INTERVAL = 1.0  # seconds between looks at the file
COMMENT = b"#"


@dataclass(frozen=True)
class Caller:
    """Who sends a request, as far as the server distinguishes callers.

    Attributes:
        key: digest of the API key; empty where no key is required.
    """

    key: bytes = b""


def read_keys(path: Path) -> frozenset[bytes]:
    """Read the digests of the keys in a file.

    A key is a line without the space around it. Empty lines, lines that begin with ``#``
    and a byte order mark are skipped.

    Raises:
        OSError: the file cannot be read.
    """
    text = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    keys = (line.strip() for line in text.splitlines())
    return frozenset(_digest(key) for key in keys if key and not key.startswith(COMMENT))


class ApiKeys:
    """The keys of a file with one key per line.

    The file is read again whenever it changes, outside of any request. While it is missing,
    unreadable or empty, the keys read last stay valid. Only digests are kept in memory.
    """

    def __init__(self, path: Path | None) -> None:
        """Read nothing yet.

        Args:
            path: the file; None where no key is required.
        """
        self._path = path
        self._digests: frozenset[bytes] = frozenset()
        self._version: object = None
        self._problem = ""
        self._reloader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the file, and keep watching it."""
        if self._path is not None:
            await self._reload(self._path)
            self._reloader = asyncio.create_task(self._watch(self._path))

    async def close(self) -> None:
        if self._reloader is not None:
            self._reloader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reloader

    def authenticate(self, authorization: str | None) -> Caller:
        """Check an ``Authorization`` header, ``Bearer KEY``, where keys are required.

        Raises:
            Unauthenticated: the key is missing or wrong.
            Unavailable: no key could be read yet.
        """
        if self._path is None:
            return Caller()
        if not self._digests:
            raise Unavailable("The API keys are not available.", retry_after=1.0)
        scheme, _, credentials = (authorization or "").partition(" ")
        key = credentials.strip().encode()
        if scheme.lower() != "bearer" or not key:
            raise Unauthenticated("Send an API key: Authorization: Bearer KEY.")
        # The time of this look-up depends on the digest alone, which reveals no key.
        digest = _digest(key)
        if digest not in self._digests:
            raise Unauthenticated("This API key is not known.")
        return Caller(digest)

    async def _watch(self, path: Path) -> None:
        while True:
            await asyncio.sleep(RELOAD_INTERVAL)
            await self._reload(path)

    async def _reload(self, path: Path) -> None:
        try:
            # In a thread: a network file system may block for long.
            version, digests = await asyncio.to_thread(self._read_if_changed, path)
        except OSError as error:
            self._report(f"cannot be read ({error.strerror})")
            return
        if digests is None:
            return
        if not digests:
            self._report("has no keys")
            return
        if self._digests:
            log.info("%d API keys read", len(digests))
        self._digests, self._version, self._problem = digests, version, ""

    def _read_if_changed(self, path: Path) -> tuple[object, frozenset[bytes] | None]:
        status = path.stat()
        version = (status.st_mtime_ns, status.st_size, status.st_ino)
        return version, (None if version == self._version else read_keys(path))

    def _report(self, problem: str) -> None:
        self._version = None
        if problem != self._problem:
            log.warning("the file of API keys %s; the keys read last stay valid", problem)
            self._problem = problem


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
