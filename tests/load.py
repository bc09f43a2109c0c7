"""A steady open-loop load from the SDK that records every photograph."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rehue_client import AsyncClient, RehueError
from rehue_client.retries import Retries

NO_RETRIES = Retries(attempts=1)  # retries would hide errors of the server


@dataclass(frozen=True)
class Outcome:
    """How a photograph ended.

    Attributes:
        due: when it was to be sent (``time.monotonic``).
        seconds: from due to its end, also if it was sent late.
        error: None for a picture.
    """

    due: float
    seconds: float
    error: RehueError | None

    @property
    def name(self) -> str:
        return type(self.error).__name__ if self.error else "ok"


@dataclass
class Load:
    """Sends a photograph every ``1 / rate`` seconds, without waiting for answers.

    A context manager: at the end it waits for all answers.

    Attributes:
        urls: of the servers, used in turn.
    """

    urls: Sequence[str]
    photo: bytes
    rate: float
    retries: Retries = NO_RETRIES
    timeout: float = 30.0
    outcomes: list[Outcome] = field(default_factory=list)

    def __enter__(self) -> "Load":
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def counts(self) -> dict[str, int]:
        """Photographs by ``ok`` or the name of their error."""
        return dict(Counter(outcome.name for outcome in self.outcomes))

    @property
    def errors(self) -> list[RehueError]:
        return [outcome.error for outcome in self.outcomes if outcome.error]

    def wait_for(self, wanted: Callable[[Outcome], bool], timeout: float = 60.0) -> float:
        """Return the seconds until a photograph that is due from now on ends as wanted."""
        start = time.monotonic()
        while time.monotonic() < start + timeout:
            for outcome in self.outcomes[-1000:]:
                if outcome.due >= start and wanted(outcome):
                    return outcome.due + outcome.seconds - start
            time.sleep(0.02)
        raise AssertionError(f"not within {timeout} s: {self.counts}")

    async def _run(self) -> None:
        clients = [
            AsyncClient(url, retries=self.retries, timeout=self.timeout) for url in self.urls
        ]
        start, sent = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while not self._stop.is_set():
                due = start + sent / self.rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                group.create_task(self._send(clients[sent % len(clients)], due))
                sent += 1
        for client in clients:
            await client.close()

    async def _send(self, client: AsyncClient, due: float) -> None:
        error = None
        try:
            await client.colorize(self.photo)
        except RehueError as raised:
            error = raised
        self.outcomes.append(Outcome(due, time.monotonic() - due, error))


def measure_goodput(
    urls: Sequence[str], photo: bytes, *, rate: float, seconds: float
) -> tuple[float, Load]:
    """Return the answered photographs per second, without the first two seconds, and the load."""
    with Load(urls, photo, rate) as load:
        time.sleep(2)
        since = time.monotonic()
        time.sleep(seconds)
        until = time.monotonic()
    ends = [outcome.due + outcome.seconds for outcome in load.outcomes if not outcome.error]
    return sum(since <= end < until for end in ends) / seconds, load
