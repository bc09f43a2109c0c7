"""The part that `Client` and `AsyncClient` share."""

import math
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, TypeVar

from rehue_client.endpoints import Endpoints
from rehue_client.memory import MemoryBudget
from rehue_client.retries import DEFAULT_RETRIES, Call, Retries
from rehue_client.target import Target, Tls, read_targets_from_environment

K = TypeVar("K")  # identifies a connection
T = TypeVar("T")  # a connection

# Longer than two starts of the server, 90 s each on two overloaded cores, so that restarts
# lose nothing.
DEFAULT_TIMEOUT = 300.0  # seconds
# A limit of the client's memory, that of servers by default (REHUE_MAX_BYTES).
DEFAULT_MAX_BYTES = 1200 * 1024**2
# Photographs of 64 MiB eight at a time, or one larger than this.
DEFAULT_BYTES_IN_FLIGHT = 512 * 1024**2
# A longer timeout counts as none: the protocols cannot express it.
LONGEST_TIMEOUT = 365 * 86400.0  # seconds


class Session(ABC, Generic[K, T]):
    """The servers of a client and a connection to each."""

    def __init__(
        self,
        targets: str | Iterable[str] | None = None,
        *,
        api_key: str | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        retries: Retries = DEFAULT_RETRIES,
        tls: Tls | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
        bytes_in_flight: int = DEFAULT_BYTES_IN_FLIGHT,
    ) -> None:
        if targets is None:
            targets = read_targets_from_environment()
        urls = [targets] if isinstance(targets, str) else list(targets)
        self._targets = [Target.parse(url) for url in urls]
        if not self._targets:
            raise ValueError("a client needs at least one server")
        self._api_key = _read_api_key() if api_key is None else api_key
        check_api_key(self._api_key)
        self._timeout = normalize_timeout(timeout)
        self._max_bytes = max_bytes
        self._memory = MemoryBudget(bytes_in_flight)
        self._retries = retries
        self._tls = tls or Tls()
        self._endpoints = Endpoints(self._targets)
        self._transports: dict[K, T] = {}
        self._lock = threading.Lock()
        self._closed = False

    @abstractmethod
    def _connect(self, target: Target) -> T:
        """Open a connection to one server."""

    def _get_transport(self, key: K, target: Target) -> T:
        """Return the connection to one server; opened on the first use of ``key``."""
        with self._lock:
            if self._closed:
                raise RuntimeError("this client is closed")
            if key not in self._transports:
                self._transports[key] = self._connect(target)
            return self._transports[key]

    def _remove_transports(self) -> dict[K, T]:
        """Mark the client as closed and return the connections to close."""
        with self._lock:
            self._closed = True
            transports, self._transports = self._transports, {}
        return transports

    def _start_call(self, timeout: float | None) -> Call:
        seconds = self._timeout if timeout is None else normalize_timeout(timeout)
        return Call(self._endpoints, self._retries, seconds)


def _read_api_key() -> str | None:
    # Files and secrets that become variables often end with a line break.
    return os.environ.get("REHUE_API_KEY", "").strip() or None


def normalize_timeout(timeout: float | None) -> float | None:
    """Return the timeout in seconds, or None where it is infinite.

    Raises:
        ValueError: the timeout is NaN.
    """
    if timeout is None or timeout > LONGEST_TIMEOUT:
        return None
    if math.isnan(timeout):
        raise ValueError("timeout is NaN; use None or math.inf for no limit")
    return timeout


def check_many(sources: object, concurrency: int) -> None:
    """Check the arguments of `colorize_many`.

    Raises:
        TypeError: ``sources`` is a single photograph.
        ValueError: ``concurrency`` is less than 1.
    """
    if isinstance(sources, (str, bytes, bytearray, os.PathLike)):
        raise TypeError("sources is a single photograph; pass a list, or use colorize()")
    if concurrency < 1:
        raise ValueError("concurrency must be at least 1")


def check_api_key(key: str | None) -> None:
    """Check that the key can be sent in a header.

    Raises:
        ValueError: it has a line break or another character that headers cannot carry.
    """
    if key and not (key.isascii() and key.isprintable()):
        raise ValueError(
            "the API key contains a line break or a character that is not ASCII; "
            "it has to be a single line"
        )
