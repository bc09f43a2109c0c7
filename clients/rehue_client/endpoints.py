"""Choice of the server for the next attempt."""

import random
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from rehue_client.errors import DeadlineExceeded, NotServing, Overloaded, RehueError, Unavailable
from rehue_client.target import Target

FIRST_COOLDOWN = 0.5  # seconds for which a server is avoided after its first failure
LONGEST_COOLDOWN = 10.0  # after many failures in a row


@dataclass(eq=False)
class Endpoint:
    """One server and its recent state."""

    target: Target
    in_flight: int = 0
    failures: int = 0  # in a row
    cooldown_end: float = 0.0  # time.monotonic()

    def cooldown(self, now: float) -> float:
        """Seconds for which this server should still be avoided."""
        return max(0.0, self.cooldown_end - now)


class Endpoints:
    """The servers of one client. Thread-safe."""

    def __init__(self, targets: Iterable[Target]) -> None:
        self._endpoints = [Endpoint(target) for target in targets]
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._endpoints)

    def acquire(self, tried: Collection[Endpoint] = ()) -> Endpoint:
        """Choose a server for one attempt. Call `release` when the attempt is over.

        Prefers servers without a cooldown, then servers not in ``tried``, then the
        one with the fewest requests in flight. Ties are broken at random, so that
        many clients do not all start with the first server.
        """
        now = time.monotonic()
        with self._lock:
            endpoint = min(
                self._endpoints,
                key=lambda e: (e.cooldown(now), e in tried, e.in_flight, random.random()),
            )
            endpoint.in_flight += 1
        return endpoint

    def release(self, endpoint: Endpoint) -> None:
        with self._lock:
            endpoint.in_flight -= 1

    def record_outcome(self, endpoint: Endpoint, error: RehueError | None) -> None:
        """Update the server's cooldown after an attempt.

        Errors that are not the server's (such as `InvalidImage`) count as success.
        """
        now = time.monotonic()
        with self._lock:
            if isinstance(error, Overloaded):
                endpoint.cooldown_end = now + (error.retry_after or 0.0)
            elif isinstance(error, (Unavailable, NotServing, DeadlineExceeded)):
                cooldown = min(LONGEST_COOLDOWN, FIRST_COOLDOWN * 2**endpoint.failures)
                endpoint.failures = min(endpoint.failures + 1, 16)
                endpoint.cooldown_end = now + max(cooldown, error.retry_after or 0.0)
            else:
                endpoint.failures = 0

    def has_untried(self, tried: Collection[Endpoint]) -> bool:
        """Return whether a server without a cooldown is not yet among ``tried``."""
        now = time.monotonic()
        return any(e not in tried and not e.cooldown(now) for e in self._endpoints)
