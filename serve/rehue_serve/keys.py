"""API keys: who may use the server."""

import asyncio
import contextlib
import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path

from rehue_serve.errors import Unauthenticated, Unavailable
from rehue_serve.quotas import Quota, parse_quota

log = logging.getLogger(__name__)

RELOAD_INTERVAL = 1.0  # seconds between looks at the file
COMMENT = b"#"


@dataclass(frozen=True)
class Caller:
    """Who sends a request, as far as the server distinguishes callers.

    Attributes:
        key: digest of the API key; empty where no key is required.
        quota: what the key's holder may send.
    """

    key: bytes = b""
    quota: Quota = field(default_factory=Quota)


def read_keys(path: Path) -> dict[bytes, Caller]:
    """Read the callers of a file, by the digests of their keys.

    A line is a key, and after it, in any order, ``name=`` of its holder, ``rate=`` photographs a
    second and ``daily=`` photographs a day. Keys of the same name share one quota. Empty lines,
    lines that begin with ``#`` and a byte order mark are skipped.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is wrong; the message has its number, and nothing of it.
    """
    callers: dict[bytes, Caller] = {}
    quotas: dict[str, Quota] = {}
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    for number, words in enumerate(map(bytes.split, lines), 1):
        if not words or words[0].startswith(COMMENT):
            continue
        try:
            quota = parse_quota([word.decode() for word in words[1:]])
        except UnicodeDecodeError:
            raise ValueError(f"line {number}: it is not UTF-8") from None
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if quota.name and quotas.setdefault(quota.name, quota) != quota:
            raise ValueError(f"line {number}: an earlier key of this name has other limits")
        digest = _hash_key(words[0])
        callers[digest] = Caller(digest, quota)
    return callers


class ApiKeys:
    """The keys of a file with one key per line, and their quotas.

    The file is read again whenever it changes, outside of any request. While it is missing,
    unreadable, wrong or empty, the keys read last stay valid. Only digests are kept in memory.
    """

    def __init__(self, path: Path | None) -> None:
        """Read nothing yet.

        Args:
            path: the file; None where no key is required.
        """
        self._path = path
        self._callers: dict[bytes, Caller] = {}
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
        if not self._callers:
            raise Unavailable("The API keys are not available.", retry_after=1.0)
        scheme, _, credentials = (authorization or "").partition(" ")
        key = credentials.strip().encode()
        if scheme.lower() != "bearer" or not key:
            raise Unauthenticated("Send an API key: Authorization: Bearer KEY.")
        # The time of this look-up depends on the digest alone, which reveals no key.
        caller = self._callers.get(_hash_key(key))
        if caller is None:
            raise Unauthenticated("This API key is not valid.")
        return caller

    async def _watch(self, path: Path) -> None:
        while True:
            await asyncio.sleep(RELOAD_INTERVAL)
            await self._reload(path)

    async def _reload(self, path: Path) -> None:
        try:
            # In a thread: a network file system may block for long.
            version, callers = await asyncio.to_thread(self._read_if_changed, path)
        except OSError as error:
            self._report(f"cannot be read ({error.strerror})")
            return
        except ValueError as error:
            self._report(f"is wrong, {error}")
            return
        if callers is None:
            return
        if not callers:
            self._report("has no keys")
            return
        if self._callers:
            log.info("%d API keys read", len(callers))
        self._callers, self._version, self._problem = callers, version, ""

    def _read_if_changed(self, path: Path) -> tuple[object, dict[bytes, Caller] | None]:
        status = path.stat()
        version = (status.st_mtime_ns, status.st_size, status.st_ino)
        return version, (None if version == self._version else read_keys(path))

    def _report(self, problem: str) -> None:
        self._version = None
        if problem != self._problem:
            log.warning("the file of API keys %s; the keys read last stay valid", problem)
            self._problem = problem


def _hash_key(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
