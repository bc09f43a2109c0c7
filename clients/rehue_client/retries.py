"""When to try again, where, and when to stop: decisions only, no waiting."""

import random
import time
from dataclasses import dataclass
from types import TracebackType

from rehue_client import tracing
from rehue_client.endpoints import Endpoint, Endpoints
from rehue_client.errors import DeadlineExceeded, RehueError


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often, and after what pauses, a call is tried again.

    Pauses double from ``first`` up to ``longest`` seconds, each cut by chance to
    between a half and the whole, so that clients that failed together do not
    come back together. What the server asks for (Retry-After) is added to them.
    The defaults outlast a server's restart: about ten seconds in all.
    """

    attempts: int = 8
    first: float = 0.1
    longest: float = 5.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first < 0 or self.longest < self.first:
            raise ValueError(f"{self} needs attempts >= 1 and 0 <= first <= longest")

    def pause(self, failures: int) -> float:
        """Seconds to wait after that many failures in a row, from 1."""
        # 2.0**64 is far beyond any `longest`; an endless power would overflow.
        longest = min(self.longest, self.first * 2.0 ** min(failures - 1, 64))
        return random.uniform(longest / 2, longest)


USUAL = Retries()


class Call:
    """One call of the caller's: its deadline and its tries so far.

    The clients turn it into requests::

        while True:
            with call.attempt() as endpoint:
                return send(endpoint, call.remaining())
            sleep(call.pause)

    An attempt lets an error through only when trying again cannot help.
    """

    def __init__(self, endpoints: Endpoints, retries: Retries, timeout: float | None) -> None:
        self.endpoints = endpoints
        self.retries = retries
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self.tried: list[Endpoint] = []
        self.failures = 0
        self.pause = 0.0

    def remaining(self) -> float | None:
        """Seconds left, or None where there is no deadline.

        Raises:
            DeadlineExceeded: none are left.
        """
        if self.deadline is None:
            return None
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded("the time given to the call is over")
        return left

    def attempt(self) -> "Attempt":
        return Attempt(self)

    def failed(self, error: RehueError) -> bool:
        """Whether to try again; `pause` then says after how many seconds."""
        self.failures += 1
        if not error.repeatable or self.failures >= self.retries.attempts:
            return False
        if self.endpoints.others(self.tried):
            self.pause = 0.0
            return True
        self.tried.clear()
        self.pause = self.retries.pause(self.failures) + (error.retry_after or 0.0)
        return self.deadline is None or time.monotonic() + self.pause < self.deadline


class Attempt:
    """One try of a call; swallows the error that another try may mend."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def __enter__(self) -> Endpoint:
        self._endpoint = self._call.endpoints.take(self._call.tried)
        self._call.tried.append(self._endpoint)
        target = self._endpoint.target
        self._span = tracing.span(
            "rehue.attempt",
            {
                "server.address": target.host,
                "server.port": target.port,
                "rehue.attempt": self._call.failures + 1,
            },
            sends=True,
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
            endpoints.note(self._endpoint, error)
        return isinstance(error, RehueError) and self._call.failed(error)
