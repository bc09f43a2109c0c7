"""Limits on the photographs in flight in one replica."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator

from rehue_serve.errors import DeadlineExceeded, Overloaded, Unavailable
from rehue_serve.keys import Caller
from rehue_serve.settings import Settings

# Each photograph in flight holds its lightness and an 8-bit picture; so many of the largest
# allowed may be decoded at the same time.
LARGEST_PICTURES_IN_MEMORY = 4

STOP_RETRY_AFTER = 5.0  # seconds; by then another server, or this one's successor, answers


class Admission:
    """Admits photographs up to the limits of the settings and refuses the rest at once."""

    def __init__(self, settings: Settings) -> None:
        self._max_requests = settings.max_requests
        self._max_pixels = LARGEST_PICTURES_IN_MEMORY * settings.max_pixels
        self._key_limit = settings.key_limit
        self._timeout = settings.timeout
        self._requests_of_keys: Counter[bytes] = Counter()
        self._pixels = 0
        self._mean_seconds = 0.1  # running mean of the time that a photograph takes
        self.requests_in_flight = 0
        self.draining = False

    @contextlib.asynccontextmanager
    async def admit(self, caller: Caller, timeout: float | None = None) -> AsyncIterator[float]:
        """Hold a place for one photograph, from before its body is read until it is answered.

        Args:
            caller: who sends it.
            timeout: seconds that the caller waits; None: the server's own limit.

        Yields:
            The loop time at which the block is cancelled.

        Raises:
            Unavailable, Overloaded, DeadlineExceeded: see `rehue_serve.errors`.
        """
        if self.draining:
            raise build_stopping_error()
        if self.requests_in_flight >= self._max_requests:
            raise self._build_overload_error("Too many photographs are in flight.")
        if caller.key and self._requests_of_keys[caller.key] >= self._key_limit:
            raise self._build_overload_error("Too many photographs of this API key are in flight.")
        timeout = min(self._timeout, timeout or self._timeout)
        deadline = asyncio.get_running_loop().time() + timeout
        self.requests_in_flight += 1
        self._requests_of_keys[caller.key] += 1
        try:
            async with asyncio.timeout_at(deadline):
                yield deadline
        except TimeoutError:
            raise DeadlineExceeded("The time for this photograph is over.") from None
        finally:
            self.requests_in_flight -= 1
            self._requests_of_keys[caller.key] -= 1
            if not self._requests_of_keys[caller.key]:
                del self._requests_of_keys[caller.key]

    @contextlib.contextmanager
    def reserve_pixels(self, pixels: int) -> Iterator[None]:
        """Reserve memory for a picture of this size.

        Raises:
            Overloaded: other pictures take the memory.
        """
        if self._pixels and self._pixels + pixels > self._max_pixels:
            raise self._build_overload_error("Too many large photographs are in flight.")
        self._pixels += pixels
        try:
            yield
        finally:
            self._pixels -= pixels

    def record_duration(self, seconds: float) -> None:
        """Record the time that a photograph took, on which ``Retry-After`` is based."""
        self._mean_seconds += 0.25 * (seconds - self._mean_seconds)

    async def drain(self) -> None:
        """Refuse new photographs, and return when those in flight are answered."""
        self.draining = True
        while self.requests_in_flight:
            await asyncio.sleep(0.02)

    def _build_overload_error(self, detail: str) -> Overloaded:
        # By then the photographs in flight are done, at the current pace.
        wait = self._mean_seconds * max(1, self.requests_in_flight) / self._max_requests
        return Overloaded(detail, retry_after=max(1.0, wait))


def build_stopping_error() -> Unavailable:
    """Build the error of requests that arrive while the server is stopping."""
    return Unavailable("The server is stopping.", retry_after=STOP_RETRY_AFTER)
