"""Limits on the bodies that one replica receives and holds.

A slow upload takes no place from other photographs: places are given when the body is
complete. So a body has limits of its own: a lowest rate, a time limit, and memory that all
bodies share. When that memory is used up, the upload that holds most of it for the longest
time, at its recent rate, is ended.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterator

from rehue_serve.errors import DeadlineExceeded, Overloaded, RehueError
from rehue_serve.settings import Settings

GRACE = 10.0  # seconds that an upload may lag behind the lowest rate
MAX_PAUSE = 30.0  # seconds without a byte
RATE_WINDOW = 5.0  # seconds, time constant of the recent rate


class Upload:
    """The body of one request, from its first byte until the request is answered."""

    def __init__(self, uploads: "Uploads") -> None:
        self._uploads = uploads
        self._started = self._last = uploads.get_time()
        self._rate = 0.0  # bytes per second, recently
        self._timeout: asyncio.Timeout | None = None  # while the body is being received
        self._end = math.inf  # the caller's deadline
        self._evicted = False
        self.size = 0  # bytes held

    @contextlib.asynccontextmanager
    async def receive(self, deadline: float | None = None) -> AsyncIterator[None]:
        """Receive the body in this block, and call `add` for each part of it.

        Args:
            deadline: loop time at which the caller stops waiting.

        Raises:
            DeadlineExceeded: the upload is too slow or takes too long.
            Overloaded: the upload was ended because the memory for bodies is used up.
        """
        self._end = math.inf if deadline is None else deadline
        try:
            async with asyncio.timeout_at(self._compute_deadline()) as self._timeout:
                yield
        except TimeoutError:
            raise self._build_error() from None
        finally:
            self._timeout = None

    def add(self, size: int) -> None:
        """Count received bytes.

        Raises:
            Overloaded: the memory for bodies is used up.
        """
        now = self._uploads.get_time()
        self._rate = self._compute_rate(now) + size / RATE_WINDOW
        self._last = now
        self.size += size
        self._uploads.take_memory(self, size)
        if self._timeout is not None and not self._evicted:
            self._timeout.reschedule(self._compute_deadline())

    @property
    def receiving(self) -> bool:
        return self._timeout is not None and not self._evicted

    def evict(self) -> None:
        """End the upload with Overloaded."""
        self._evicted = True
        if self._timeout is not None:
            self._timeout.reschedule(self._uploads.get_time())

    def compute_cost(self) -> float:
        """Return the seconds in which the upload receives, at its rate, what it holds."""
        return self.size / max(1.0, self._compute_rate(self._uploads.get_time()))

    def _compute_rate(self, now: float) -> float:
        return self._rate * math.exp((self._last - now) / RATE_WINDOW)

    def _compute_deadline(self) -> float:
        lowest_rate = self._started + GRACE + self.size / self._uploads.lowest_rate
        end = self._started + self._uploads.timeout
        return min(self._end, end, lowest_rate, self._last + MAX_PAUSE)

    def _build_error(self) -> RehueError:
        if self._evicted:
            return build_memory_error()
        if self._uploads.get_time() >= self._end:
            return DeadlineExceeded("The time for this photograph is over.")
        return DeadlineExceeded(
            f"The upload is too slow: the limits are {self._uploads.lowest_rate:,} bytes a second "
            f"and {self._uploads.timeout:g} seconds."
        )


class Uploads:
    """The bodies of one replica's requests. Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.timeout = settings.upload_timeout
        self.lowest_rate = settings.upload_rate
        self._max_uploads = settings.max_uploads
        self._max_memory = settings.upload_memory
        self._uploads: set[Upload] = set()
        self._memory = 0

    @property
    def in_progress(self) -> int:
        """Number of requests whose bodies are held."""
        return len(self._uploads)

    def get_time(self) -> float:
        return asyncio.get_running_loop().time()

    @contextlib.contextmanager
    def hold(self) -> Iterator[Upload]:
        """Hold a body for the block: while it is received, and until its request is answered.

        Raises:
            Overloaded: too many bodies are held.
        """
        if len(self._uploads) >= self._max_uploads:
            raise Overloaded("Too many uploads are in progress.", retry_after=1.0)
        upload = Upload(self)
        self._uploads.add(upload)
        try:
            yield upload
        finally:
            self._uploads.remove(upload)
            self._memory -= upload.size

    def take_memory(self, upload: Upload, size: int) -> None:
        """Count bytes of an upload, and end the costliest upload where the memory is used up.

        Raises:
            Overloaded: the costliest is this upload, or no other can be ended.
        """
        self._memory += size
        while self._memory > self._max_memory:
            others = [other for other in self._uploads if other.receiving and other.size]
            costliest = max([*others, upload], key=Upload.compute_cost)
            if costliest is upload:
                raise build_memory_error()
            costliest.evict()
            self._memory -= costliest.size
            costliest.size = 0


def build_memory_error() -> Overloaded:
    """Build the error of an upload for which there is no memory."""
    return Overloaded("Too many bytes of uploads are in progress.", retry_after=1.0)
