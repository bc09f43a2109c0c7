"""Retry decisions. The clients do the waiting."""

import math
import random
import time
from dataclasses import dataclass
from types import TracebackType

from rehue_client import tracing
from rehue_client.endpoints import Endpoint, Endpoints
from rehue_client.errors import DeadlineExceeded, NotServing, RehueError

# Seconds for which "not found" is retried. A starting server answers that for some
# seconds; later the address is more likely to be wrong.
NOT_SERVING_PATIENCE = 30.0


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How long and how often a call is retried, and with which pauses.

    Calls are retried while the server is overloaded, cannot be reached, or is not
    ready. The default outlasts restarts of the server.

    Pauses double from ``first`` to ``longest`` seconds. Each is drawn at random
    between half and all of that, so that clients that failed together do not retry
    together. The server's Retry-After is added.

    Args:
        patience: seconds since its first failure for which a call is retried. The
            call's timeout limits it as well.
        attempts: attempts per call, the first included; None: no limit.
        first: longest pause after the first failure, in seconds.
        longest: longest pause after any failure, in seconds.

    Raises:
        ValueError: a value is out of range.
    """

    patience: float = 300.0
    attempts: int | None = None
    first: float = 0.1
    longest: float = 5.0

    def __post_init__(self) -> None:
        if self.attempts is not None and self.attempts < 1:
            raise ValueError(f"{self} needs attempts >= 1")
        if not self.patience >= 0 or not 0 <= self.first <= self.longest:
            raise ValueError(f"{self} needs patience >= 0 and 0 <= first <= longest")

    def draw_pause(self, failures: int) -> float:
        """Return the seconds to wait after ``failures`` (at least 1) in a row."""
        # The exponent is bounded because a large one overflows; 2**64 s is beyond any `longest`.
        longest = min(self.longest, self.first * 2.0 ** min(failures - 1, 64))
        return random.uniform(longest / 2, longest)


DEFAULT_RETRIES = Retries()


class Call:
    """One call of the API: its deadline and its attempts so far.

    The clients use it like this::

        while True:
            with call.start_attempt() as endpoint:
                return send(endpoint, call.get_remaining())
            sleep(call.pause)

    The ``with`` block suppresses an error if the call should be retried.
    """

    def __init__(self, endpoints: Endpoints, retries: Retries, timeout: float | None) -> None:
        self.endpoints = endpoints
        self.retries = retries
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self.tried: list[Endpoint] = []
        self.failures = 0
        self.retry_end = math.inf
        self.not_serving_end = math.inf
        self.pause = 0.0

    def get_remaining(self) -> float | None:
        """Return the seconds left, or None if there is no deadline.

        Raises:
            DeadlineExceeded: the deadline has passed.
        """
        if self.deadline is None:
            return None
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise DeadlineExceeded("the call's timeout has passed")
        return remaining

    def start_attempt(self) -> "Attempt":
        return Attempt(self)

    def should_retry(self, error: RehueError) -> bool:
        """Return whether to retry after ``error``; sets `pause` to the seconds to wait."""
        now = time.monotonic()
        if self.failures == 0:
            self.retry_end = now + self.retries.patience
        self.failures += 1
        if not isinstance(error, NotServing):
            self.not_serving_end = math.inf
        elif self.not_serving_end == math.inf:
            self.not_serving_end = now + NOT_SERVING_PATIENCE
        if not error.retryable or self.failures == self.retries.attempts:
            return False
        if self.endpoints.has_untried(self.tried):
            self.pause = 0.0
            return True
        self.tried.clear()
        self.pause = self.retries.draw_pause(self.failures) + (error.retry_after or 0.0)
        deadline = math.inf if self.deadline is None else self.deadline
        return now + self.pause < min(deadline, self.retry_end, self.not_serving_end)


class Attempt:
    """One attempt of a call. Suppresses the error if the call should be retried."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def __enter__(self) -> Endpoint:
        self._endpoint = self._call.endpoints.acquire(self._call.tried)
        self._call.tried.append(self._endpoint)
        target = self._endpoint.target
        self._span = tracing.start_span(
            "rehue.attempt",
            {
                "server.address": target.host,
                "server.port": target.port,
                "rehue.attempt": self._call.failures + 1,
            },
            is_request=True,
        )
        self._span.__enter__()
        return self._endpoint

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._span.__exit__(kind, error, trace)
        endpoints = self._call.endpoints
        endpoints.release(self._endpoint)
        if error is None or isinstance(error, RehueError):
            endpoints.record_outcome(self._endpoint, error)
        return isinstance(error, RehueError) and self._call.should_retry(error)
