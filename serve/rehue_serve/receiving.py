"""Limits on the gRPC messages that one replica is receiving or sending.

gRPC hands a message over when it is complete, and says nothing of its size before. So this
module takes the key before the message, limits the time of a message, and watches the memory
of the process: when it grows beyond what the settings allow, the calls whose messages have
been coming for the longest time are ended. A message that comes within moments is never one
of them.

An answer is in gRPC's memory until the client has read it, and gRPC has no way to end a call
that is being answered. So no more calls are accepted while too many bytes wait for their
readers. HAProxy ends calls whose clients read nothing, or take too long.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

from rehue_serve.errors import DeadlineExceeded, Overloaded
from rehue_serve.settings import Settings

CHECK_INTERVAL = 0.1  # seconds between looks at the memory
YOUNG = 2.0  # seconds; a message that arrived in less is not ended
SPARE_MEMORY = 256 * 2**20  # bytes beyond the limits, for what they do not count
PAGE = os.sysconf("SC_PAGE_SIZE")


class Receiving:
    """The calls of one process whose messages are being received. Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._timeout = settings.upload_timeout
        self._max_calls = settings.max_uploads
        budget = settings.upload_memory + settings.work_memory + SPARE_MEMORY
        self._memory_limit = read_resident_memory() + budget
        self._max_unread = settings.upload_memory
        self.unread = 0  # bytes of answers that are being sent
        self._calls: dict[asyncio.Future[None], float] = {}  # start of each, by what ends it
        self._watcher: asyncio.Task[None] | None = None

    async def receive(self, messages: AsyncIterator[Any], *, is_limited: bool = True) -> Any:
        """Receive the next message of a call within the limits.

        Args:
            messages: of the call, as gRPC gives them to a handler.
            is_limited: whether the time is limited; between the messages of a stream it is not.

        Raises:
            Overloaded: too many messages, or too much memory.
            DeadlineExceeded: the message took too long.
            StopAsyncIteration: there is none.
        """
        if len(self._calls) >= self._max_calls:
            raise Overloaded("Too many uploads are in progress.", retry_after=1.0)
        loop = asyncio.get_running_loop()
        if self._watcher is None:
            self._watcher = loop.create_task(self._watch())
        eviction = loop.create_future()
        self._calls[eviction] = loop.time()
        message = asyncio.ensure_future(anext(messages))
        try:
            # The receiving is not cancelled: gRPC ends it when the call is answered.
            done, _ = await asyncio.wait(
                {message, eviction},
                timeout=self._timeout if is_limited else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            del self._calls[eviction]
            message.add_done_callback(_retrieve)
        if message in done:
            return message.result()
        if eviction in done:
            raise Overloaded("Too many bytes of uploads are in progress.", retry_after=1.0)
        raise DeadlineExceeded(f"The upload took more than {self._timeout:g} seconds.")

    def check_answers(self) -> None:
        """Refuse a call while too many bytes of answers are not read.

        Raises:
            Overloaded: the answers of others take the memory.
        """
        if self.unread >= self._max_unread:
            raise Overloaded(
                "Too many answers are waiting to be read by their callers.", retry_after=1.0
            )

    @contextlib.contextmanager
    def send(self, size: int) -> Iterator[None]:
        """Count the bytes of an answer for the block, in which it is sent."""
        self.unread += size
        try:
            yield
        finally:
            self.unread -= size

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            if self._calls and read_resident_memory() > self._memory_limit:
                self._evict_oldest()

    def _evict_oldest(self) -> None:
        now = asyncio.get_running_loop().time()
        old = [call for call, started in self._calls.items() if now - started > YOUNG]
        # A share at a time: gRPC frees the memory a moment later.
        for eviction in old[: 1 + len(old) // 8]:
            if not eviction.done():
                eviction.set_result(None)


def read_resident_memory() -> int:
    """Return the memory of this process in bytes."""
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123  # every 100 ms
        return int(file.read().split()[1]) * PAGE


def _retrieve(message: "asyncio.Future[Any]") -> None:
    if not message.cancelled():
        message.exception()
