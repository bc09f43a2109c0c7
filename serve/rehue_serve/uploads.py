"""Limits on the bodies that one replica receives and holds, and on the answers that it sends.

A slow upload takes no place from other photographs: places are given when the body is
complete. A slow reader takes none either: its place is free when the picture is there. So both
have limits of their own: a lowest rate, a longest pause, and memory that all share. When that
memory is used up, the transfer that holds most of it for the longest time, at its recent rate,
is ended.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterator

from rehue_serve.errors import DeadlineExceeded, Overloaded, RehueError
from rehue_serve.settings import Settings

GRACE = 10.0  # seconds that a transfer may lag behind the lowest rate
MAX_PAUSE = 30.0  # seconds without a byte
RATE_WINDOW = 5.0  # seconds, time constant of the recent rate


class Transfer:
    """Bytes that the replica holds while it receives or sends them.

    Attributes:
        size: bytes held.
    """

    def __init__(self, uploads: "Uploads") -> None:
        self._uploads = uploads
        self._started = self._last = uploads.get_time()
        self._rate = 0.0  # bytes per second, recently
        self._moved = 0  # bytes received or sent
        self._timeout: asyncio.Timeout | None = None  # while bytes are moving
        self._evicted = False
        self.size = 0

    @property
    def moving(self) -> bool:
        """Whether it can be ended to free its memory."""
        return self._timeout is not None and not self._evicted

    def evict(self) -> None:
        """End the transfer with Overloaded."""
        self._evicted = True
        if self._timeout is not None:
            self._timeout.reschedule(self._uploads.get_time())

    def compute_cost(self) -> float:
        """Return the seconds in which the transfer moves, at its rate, what it holds."""
        return self.size / max(1.0, self._compute_rate(self._uploads.get_time()))

    @contextlib.asynccontextmanager
    async def _limit(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout_at(self._compute_deadline()) as self._timeout:
                yield
        except TimeoutError:
            raise self._build_error() from None
        finally:
            self._timeout = None

    def _record(self, size: int) -> None:
        """Count bytes that moved."""
        now = self._uploads.get_time()
        self._rate = self._compute_rate(now) + size / RATE_WINDOW
        self._last = now
        self._moved += size

    def _extend(self) -> None:
        if self.moving:
            assert self._timeout is not None
            self._timeout.reschedule(self._compute_deadline())

    def _compute_rate(self, now: float) -> float:
        return self._rate * math.exp((self._last - now) / RATE_WINDOW)

    def _compute_deadline(self) -> float:
        lowest_rate = self._started + GRACE + self._moved / self._uploads.lowest_rate
        return min(lowest_rate, self._last + MAX_PAUSE)

    def _build_error(self) -> RehueError:
        raise NotImplementedError


class Upload(Transfer):
    """The body of one request, from its first byte until the request is answered."""

    _end = math.inf  # the caller's deadline

    @contextlib.asynccontextmanager
    async def receive(self, deadline: float | None = None) -> AsyncIterator[None]:
        """Receive the body in this block, and call `add` for each part of it.

        Args:
            deadline: loop time at which the caller stops waiting.

        Raises:
            DeadlineExceeded: the upload is too slow or takes too long.
            Overloaded: the upload was ended because the memory is used up.
        """
        self._end = math.inf if deadline is None else deadline
        async with self._limit():
            yield

    def add(self, size: int) -> None:
        """Count received bytes.

        Raises:
            Overloaded: the memory is used up.
        """
        self._record(size)
        self._uploads.take_memory(self, size)
        self._extend()

    def _compute_deadline(self) -> float:
        return min(
            super()._compute_deadline(), self._end, self._started + self._uploads.upload_timeout
        )

    def _build_error(self) -> RehueError:
        if self._evicted:
            return build_memory_error()
        if self._uploads.get_time() >= self._end:
            return DeadlineExceeded("The deadline for this photograph has passed.")
        return DeadlineExceeded(
            f"The upload is too slow: the limits are {self._uploads.lowest_rate:,} bytes a second "
            f"and {self._uploads.upload_timeout:g} seconds."
        )


class Answer(Transfer):
    """A picture that is being sent to its caller."""

    @contextlib.asynccontextmanager
    async def send(self, size: int) -> AsyncIterator[None]:
        """Send the picture in this block, and call `record` for each part that was sent.

        Raises:
            DeadlineExceeded: the caller reads too slowly.
            Overloaded: the memory is used up; at the start, or because this answer was ended.
        """
        self._rate = size / RATE_WINDOW  # until more is known, as if it had just been received
        self._uploads.take_memory(self, size)
        async with self._limit():
            yield

    def record(self, size: int) -> None:
        """Count bytes that were sent; the memory is held to the end."""
        self._record(size)
        self._extend()

    def _build_error(self) -> RehueError:
        if self._evicted:
            return build_memory_error()
        return DeadlineExceeded(
            "The answer is read too slowly: the limits are "
            f"{self._uploads.lowest_rate:,} bytes a second and pauses of {MAX_PAUSE:g} seconds."
        )


class Uploads:
    """The bodies and answers of one replica's requests. Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.upload_timeout = settings.upload_timeout
        self.lowest_rate = settings.upload_rate
        self._max_uploads = settings.max_uploads
        self._max_memory = settings.upload_memory
        self._transfers: set[Transfer] = set()
        self._memory = 0

    @property
    def in_progress(self) -> int:
        """Number of requests whose bodies or answers are held."""
        return len(self._transfers)

    def get_time(self) -> float:
        return asyncio.get_running_loop().time()

    @contextlib.contextmanager
    def hold(self) -> Iterator[Upload]:
        """Hold a body for the block: while it is received, and until its request is answered.

        Raises:
            Overloaded: too many bodies and answers are held.
        """
        if len(self._transfers) >= self._max_uploads:
            raise Overloaded("Too many uploads are in progress.", retry_after=1.0)
        upload = Upload(self)
        with self._keep(upload):
            yield upload

    @contextlib.asynccontextmanager
    async def send(self, size: int) -> AsyncIterator[Answer]:
        """Hold an answer for the block, in which it is sent; see `Answer.send`."""
        answer = Answer(self)
        with self._keep(answer):
            async with answer.send(size):
                yield answer

    @contextlib.contextmanager
    def _keep(self, transfer: Transfer) -> Iterator[None]:
        self._transfers.add(transfer)
        try:
            yield
        finally:
            self._transfers.remove(transfer)
            self.free_memory(transfer, transfer.size)

    def take_memory(self, transfer: Transfer, size: int) -> None:
        """Count bytes of a transfer, and end the costliest one where the memory is used up.

        Raises:
            Overloaded: the costliest is this transfer, or no other can be ended.
        """
        transfer.size += size
        self._memory += size
        # One that holds all of it may hold more: it harms nobody.
        while self._memory > max(self._max_memory, transfer.size):
            others = [other for other in self._transfers if other.moving and other.size]
            costliest = max([*others, transfer], key=Transfer.compute_cost)
            if costliest is transfer:
                raise build_memory_error()
            costliest.evict()
            self.free_memory(costliest, costliest.size)

    def free_memory(self, transfer: Transfer, size: int) -> None:
        """Count bytes that a transfer holds no longer."""
        transfer.size -= size
        self._memory -= size


def build_memory_error() -> Overloaded:
    """Build the error of a transfer for which there is no memory."""
    return Overloaded("Too many bytes of uploads and answers are in progress.", retry_after=1.0)
