"""What both clients are made of: everything but the awaiting."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, TypeVar

from rehue_client.endpoints import Endpoints
from rehue_client.retries import USUAL, Call, Retries
from rehue_client.target import DEFAULT, Target, Tls

T = TypeVar("T")


class Session(ABC, Generic[T]):
    """The servers of a client, a connection to each, and the way it calls them.

    Args:
        targets: ``grpc://``, ``grpcs://``, ``http://`` or ``https://`` addresses.
            Of several, the least busy is asked, and another when it fails.
        api_key: for servers that ask for one.
        timeout: seconds for one photograph, retries and pauses included; None: no end.
        retries: how often and after what pauses a call is tried again.
        tls: certificates for ``grpcs://`` and ``https://``.

    Raises:
        ValueError: an address that is none.
    """

    def __init__(
        self,
        targets: str | Iterable[str] = DEFAULT,
        *,
        api_key: str | None = None,
        timeout: float | None = 60.0,
        retries: Retries = USUAL,
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
        """A new connection to one server."""

    def _transport(self, target: Target) -> T:
        """The connection to one server, made when it is first needed."""
        with self._lock:
            if self._closed:
                raise RuntimeError("this client is closed")
            if target not in self._transports:
                self._transports[target] = self._connect(target)
            return self._transports[target]

    def _drain(self) -> list[T]:
        """The connections to close; none are made after it."""
        with self._lock:
            self._closed = True
            transports = list(self._transports.values())
            self._transports.clear()
        return transports

    def _call(self, timeout: float | None) -> Call:
        return Call(self._endpoints, self._retries, self._timeout if timeout is None else timeout)

    def _listing(self, timeout: float | None) -> Call:
        """A call for the list of models, which only HTTP gives."""
        http = [target for target in self._targets if not target.speaks_grpc]
        endpoints = Endpoints(http or self._targets)
        return Call(endpoints, self._retries, self._timeout if timeout is None else timeout)
