"""A limit on the bytes of photographs that a client holds at a time."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future


class MemoryBudget:
    """Bytes that calls share, for use by threads and event loops together.

    Calls get their bytes in the order in which they ask, so that a large photograph is not
    passed by small ones for ever. One that exceeds the limit waits until it is alone.
    """

    def __init__(self, limit: int) -> None:
        """Limit the bytes.

        Raises:
            ValueError: the limit is not positive.
        """
        if limit < 1:
            raise ValueError("the bytes in flight must be at least 1")
        self._limit = limit
        self._used = 0
        self._waiting: deque[tuple[int, Future[None]]] = deque()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Hold ``size`` bytes for the block; wait until they are free."""
        place = self._request(size)
        try:
            place.result()
            yield
        finally:
            self._free(size, place)

    @contextlib.asynccontextmanager
    async def hold_async(self, size: int) -> AsyncIterator[None]:
        """`hold` for an event loop, which goes on meanwhile."""
        place = self._request(size)
        try:
            if not place.done():
                await asyncio.wrap_future(place)
            yield
        finally:
            self._free(size, place)

    def _request(self, size: int) -> "Future[None]":
        place: Future[None] = Future()
        with self._lock:
            self._waiting.append((size, place))
            self._serve_waiting()
        return place

    def _free(self, size: int, place: "Future[None]") -> None:
        with self._lock:
            if not place.cancel():  # it was served
                self._used -= size
            self._serve_waiting()

    def _serve_waiting(self) -> None:
        while self._waiting:
            size, place = self._waiting[0]
            if not place.cancelled() and self._used and self._used + size > self._limit:
                return
            self._waiting.popleft()
            if place.set_running_or_notify_cancel():  # False: the call was cancelled
                self._used += size
                place.set_result(None)
