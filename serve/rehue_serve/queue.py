"""Photographs that wait for a call to Triton, oldest first. Belongs to one event loop."""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from opentelemetry.trace import Span

from rehue_core.colorize import ModelSpec, Tensor
from rehue_serve.errors import RehueError


@dataclass(eq=False)
class QueuedPhotograph:
    """One photograph on its way through the queue and through calls to Triton."""

    spec: ModelSpec
    input: Tensor  # 1HW
    deadline: float  # loop time
    result: "asyncio.Future[tuple[Tensor, str]]"
    span: Span | None = None  # parent of the calls' spans; None where it is not traced
    attempts: int = 0  # calls that failed
    calls: int = 0  # calls in flight that carry it

    def fail(self, error: RehueError) -> None:
        if not self.result.done():
            self.result.set_exception(error)


class PhotographQueue:
    """A first-in, first-out queue whose head leaves with every photograph of the same model."""

    def __init__(self) -> None:
        self._waiting: deque[QueuedPhotograph] = deque()
        self._filled = asyncio.Event()

    async def wait(self) -> None:
        """Return as soon as a photograph waits."""
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()

    def put(self, photograph: QueuedPhotograph) -> None:
        self._waiting.append(photograph)
        self._filled.set()

    def put_back(self, photographs: Iterable[QueuedPhotograph]) -> None:
        """Put photographs at the head, in their order: they have waited before."""
        self._waiting.extendleft(reversed(list(photographs)))
        self._filled.set()

    def take_batch(self, most: int | None = None) -> list[QueuedPhotograph]:
        """Remove the oldest photograph and those that fit into one call with it.

        Photographs whose caller has given up are dropped.

        Args:
            most: photographs in one call; None: as many as the model takes.
        """
        waiting = [photograph for photograph in self._waiting if not photograph.result.done()]
        batch: list[QueuedPhotograph] = []
        rest: deque[QueuedPhotograph] = deque()
        for photograph in waiting:
            limit = (
                photograph.spec.max_batch if most is None else min(most, photograph.spec.max_batch)
            )
            fits = photograph.spec == waiting[0].spec and len(batch) < limit
            (batch if fits else rest).append(photograph)
        self._waiting = rest
        return batch

    def fail_all(self, error: RehueError) -> None:
        while self._waiting:
            self._waiting.popleft().fail(error)
