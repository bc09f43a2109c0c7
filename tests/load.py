"""A steady load from the SDK that counts every photograph."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rehue_client import AsyncClient, RehueError
from rehue_client.retries import Retries

ONCE = Retries(attempts=1)  # so that the client hides nothing


@dataclass(frozen=True)
class Outcome:
    """One photograph: when it was due (``time.monotonic``), and how it ended."""

    due: float
    seconds: float  # from when it was due, whenever it was sent
    error: RehueError | None

    @property
    def name(self) -> str:
        return type(self.error).__name__ if self.error else "ok"


@dataclass
class Load:
    """Sends one photograph every ``1 / rate`` seconds, whatever became of those before.

    Use it as a context manager: at the end it waits for all answers.
    """

    urls: Sequence[str]  # asked in turn
    photo: bytes
    rate: float
    retries: Retries = ONCE
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
        """How many photographs ended how: ``ok``, or the error's name."""
        return dict(Counter(outcome.name for outcome in self.outcomes))

    @property
    def errors(self) -> list[RehueError]:
        return [outcome.error for outcome in self.outcomes if outcome.error]

    def wait_for(self, wanted: Callable[[Outcome], bool], timeout: float = 60.0) -> float:
        """Seconds until a photograph that is due from now on ends as wanted."""
        began = time.monotonic()
        while time.monotonic() < began + timeout:
            for outcome in self.outcomes[-1000:]:
                if outcome.due >= began and wanted(outcome):
                    return outcome.due + outcome.seconds - began
            time.sleep(0.02)
        raise AssertionError(f"not within {timeout} s: {self.counts}")

    async def _run(self) -> None:
        clients = [
            AsyncClient(url, retries=self.retries, timeout=self.timeout) for url in self.urls
        ]
        began, sent = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while not self._stop.is_set():
                due = began + sent / self.rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                group.create_task(self._one(clients[sent % len(clients)], due))
                sent += 1
        for client in clients:
            await client.close()

    async def _one(self, client: AsyncClient, due: float) -> None:
        error = None
        try:
            await client.colorize(self.photo)
        except RehueError as raised:
            error = raised
        self.outcomes.append(Outcome(due, time.monotonic() - due, error))


def offered(
    urls: Sequence[str], photo: bytes, *, rate: float, seconds: float
) -> tuple[float, Load]:
    """Pictures a second that come out of a load, its first two seconds left out."""
    with Load(urls, photo, rate) as load:
        time.sleep(2)
        since = time.monotonic()
        time.sleep(seconds)
        until = time.monotonic()
    ends = [outcome.due + outcome.seconds for outcome in load.outcomes if not outcome.error]
    return sum(since <= end < until for end in ends) / seconds, load
