"""Limits on the photographs in flight in one replica."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

from rehue_serve.errors import DeadlineExceeded, Overloaded, Unavailable
from rehue_serve.keys import Caller
from rehue_serve.quotas import Quotas
from rehue_serve.settings import Settings

STOP_RETRY_AFTER = 5.0  # seconds; by then another server, or this one's successor, answers


class Admission:
    """Admits photographs up to the limits of the settings and refuses the rest at once."""

    def __init__(self, settings: Settings) -> None:
        self._max_requests = settings.max_requests
        self._key_limit = settings.key_limit
        self._timeout = settings.timeout
        self._requests_of_keys: Counter[bytes] = Counter()
        self._quotas = Quotas()
        self._mean_seconds = 0.1  # running mean of the time that a photograph takes
        self.requests_in_flight = 0
        self.draining = False

    def check_open(self, caller: Caller) -> None:
        """Refuse a request before its body is read.

        Raises:
            Unavailable: the server is stopping.
            Overloaded: there is no place at the moment.
            QuotaExceeded: the key's quota is used up.
        """
        if self.draining:
            raise build_stopping_error()
        self._check_places(caller)
        self._quotas.check(caller.quota)

    @contextlib.asynccontextmanager
    async def admit(
        self, caller: Caller, deadline: float | None = None, *, runs: int = 1
    ) -> AsyncIterator[float]:
        """Hold a place for one photograph, from when its bytes are received until it is answered.

        Args:
            caller: who sends it.
            deadline: loop time at which the caller stops waiting.
            runs: of the network at a time; it takes as many places, and of the quota.

        Yields:
            The loop time at which the block is cancelled: the caller's deadline or the
            server's own limit.

        Raises:
            Overloaded: there is no place.
            QuotaExceeded: the key's quota is used up.
            DeadlineExceeded: the block took too long.
        """
        self._check_places(caller, runs)
        self._quotas.take(caller.quota, runs)
        limit = asyncio.get_running_loop().time() + self._timeout
        deadline = limit if deadline is None else min(limit, deadline)
        self.requests_in_flight += runs
        self._requests_of_keys[caller.key] += runs
        try:
            async with asyncio.timeout_at(deadline):
                yield deadline
        except TimeoutError:
            raise DeadlineExceeded("The deadline for this photograph has passed.") from None
        finally:
            self.requests_in_flight -= runs
            self._requests_of_keys[caller.key] -= runs
            if not self._requests_of_keys[caller.key]:
                del self._requests_of_keys[caller.key]

    def record_duration(self, seconds: float) -> None:
        """Record the time that a photograph took, on which ``Retry-After`` is based."""
        self._mean_seconds += 0.25 * (seconds - self._mean_seconds)

    def _check_places(self, caller: Caller, runs: int = 1) -> None:
        if not _fits(self.requests_in_flight, runs, self._max_requests):
            raise self._build_overload_error("Too many photographs are in flight.")
        of_key = self._requests_of_keys[caller.key]
        if caller.key and not _fits(of_key, runs, self._key_limit):
            raise self._build_overload_error("Too many photographs of this API key are in flight.")

    def _build_overload_error(self, detail: str) -> Overloaded:
        # By then the photographs in flight are done, at the current pace.
        wait = self._mean_seconds * max(1, self.requests_in_flight) / self._max_requests
        return Overloaded(detail, retry_after=max(1.0, wait))


def _fits(used: int, more: int, limit: int) -> bool:
    """Whether there is room; what is larger than the limit gets it where nothing else is."""
    return used + more <= max(limit, more)


def build_stopping_error() -> Unavailable:
    """Build the error of requests that arrive while the server is stopping."""
    return Unavailable("The server is stopping.", retry_after=STOP_RETRY_AFTER)
