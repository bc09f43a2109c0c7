"""The part that `Client` and `AsyncClient` share."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, TypeVar

from rehue_client.endpoints import Endpoints
from rehue_client.retries import DEFAULT_RETRIES, Call, Retries
from rehue_client.target import DEFAULT_TARGET, Target, Tls

T = TypeVar("T")


class Session(ABC, Generic[T]):
    """The servers of a client and a connection to each.

    Args:
        targets: ``grpc://``, ``grpcs://``, ``http://`` or ``https://`` addresses.
            Of several, the one with the fewest requests in flight is used, and
            another one if it fails.
        api_key: for servers that require one.
        timeout: seconds for one photograph, retries and pauses included; None: no limit.
        retries: how often and with which pauses a call is retried.
        tls: certificates for ``grpcs://`` and ``https://``.

    Raises:
        ValueError: an address is not valid, or there is none.
    """

    def __init__(
        self,
        targets: str | Iterable[str] = DEFAULT_TARGET,
        *,
        api_key: str | None = None,
        timeout: float | None = 60.0,
        retries: Retries = DEFAULT_RETRIES,
        tls: Tls | None = None,
    ) -> None:
        urls = [targets] if isinstance(targets, str) else list(targets)
        self._targets = [Target.parse(url) for url in urls]
        if not self._targets:
            raise ValueError("a client needs at least one server")
        self._api_key = api_key
        self._timeout = timeout
        self._retries = retries
        self._tls = tls or Tls()
        self._endpoints = Endpoints(self._targets)
        self._transports: dict[Target, T] = {}
        self._lock = threading.Lock()
        self._closed = False

    @abstractmethod
    def _connect(self, target: Target) -> T:
        """Open a connection to one server."""

    def _get_transport(self, target: Target) -> T:
        """Return the connection to one server; opened on first use."""
        with self._lock:
            if self._closed:
                raise RuntimeError("this client is closed")
            if target not in self._transports:
                self._transports[target] = self._connect(target)
            return self._transports[target]

    def _remove_transports(self) -> list[T]:
        """Mark the client as closed and return the connections to close."""
        with self._lock:
            self._closed = True
            transports = list(self._transports.values())
            self._transports.clear()
        return transports

    def _start_call(self, timeout: float | None) -> Call:
        return Call(self._endpoints, self._retries, self._timeout if timeout is None else timeout)

    def _start_listing(self, timeout: float | None) -> Call:
        """Start a call for the list of models, which only HTTP offers."""
        http = [target for target in self._targets if not target.uses_grpc]
        endpoints = Endpoints(http or self._targets)
        return Call(endpoints, self._retries, self._timeout if timeout is None else timeout)
