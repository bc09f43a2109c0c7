"""Which server to ask next: the least busy of those that are well."""

import random
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from rehue_client.errors import DeadlineExceeded, Overloaded, RehueError, Unavailable
from rehue_client.target import Target

FIRST_REST = 0.5  # seconds that a server which cannot be reached is left alone
LONGEST_REST = 10.0  # after many failures in a row


@dataclass(eq=False)
class Endpoint:
    """One server and how it has done of late."""

    target: Target
    busy: int = 0
    failures: int = 0
    rests_until: float = 0.0

    def rest(self, now: float) -> float:
        """Seconds for which it had better not be asked."""
        return max(0.0, self.rests_until - now)


class Endpoints:
    """The servers of one client; safe to use from several threads."""

    def __init__(self, targets: Iterable[Target]) -> None:
        self._endpoints = [Endpoint(target) for target in targets]
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._endpoints)

    def take(self, tried: Collection[Endpoint] = ()) -> Endpoint:
        """The one to ask now; `release` gives it back.

        Rested ones before resting ones, then those that this call has not tried,
        then the least busy; chance decides the rest, so that many clients do not
        all begin with the first.
        """
        now = time.monotonic()
        with self._lock:
            endpoint = min(
                self._endpoints,
                key=lambda e: (e.rest(now), e in tried, e.busy, random.random()),
            )
            endpoint.busy += 1
        return endpoint

    def release(self, endpoint: Endpoint) -> None:
        with self._lock:
            endpoint.busy -= 1

    def note(self, endpoint: Endpoint, error: RehueError | None) -> None:
        """How a call to ``endpoint`` ended; a refusal too is a sign of life."""
        now = time.monotonic()
        with self._lock:
            if isinstance(error, Overloaded):
                endpoint.rests_until = now + (error.retry_after or 0.0)
            elif isinstance(error, (Unavailable, DeadlineExceeded)):
                rest = min(LONGEST_REST, FIRST_REST * 2**endpoint.failures)
                endpoint.failures = min(endpoint.failures + 1, 16)
                endpoint.rests_until = now + max(rest, error.retry_after or 0.0)
            else:
                endpoint.failures = 0

    def others(self, tried: Collection[Endpoint]) -> bool:
        """Whether a rested server is left that is not among ``tried``."""
        now = time.monotonic()
        return any(e not in tried and not e.rest(now) for e in self._endpoints)
