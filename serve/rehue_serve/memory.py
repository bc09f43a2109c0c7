"""Memory that the photographs in work may take."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from rehue_serve.errors import Overloaded

MAX_WAIT = 30.0  # seconds; longer waits are refused


@dataclass
class _Reservation:
    size: int
    granted: asyncio.Event = field(default_factory=asyncio.Event)


class MemoryBudget:
    """Reservations within a limit; those that do not fit wait until others end.

    A small photograph may pass a large one that waits: the small ones in flight together
    take a fraction of the limit, so the large one is not kept waiting for long.
    """

    def __init__(self, limit: int) -> None:
        """Start with nothing reserved.

        Args:
            limit: bytes. A single reservation above it is granted when there is no other.
        """
        self._limit = limit
        self._used = 0
        self._waiting: list[_Reservation] = []

    @contextlib.asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[None]:
        """Reserve memory for the block.

        Args:
            size: bytes.

        Raises:
            Overloaded: other photographs held the memory for too long.
        """
        reservation = _Reservation(size)
        self._waiting.append(reservation)
        self._grant()
        try:
            await self._wait(reservation)
            yield
        finally:
            if reservation.granted.is_set():
                self._used -= size
            else:
                self._waiting.remove(reservation)
            self._grant()

    async def _wait(self, reservation: _Reservation) -> None:
        try:
            async with asyncio.timeout(MAX_WAIT):
                await reservation.granted.wait()
        except TimeoutError:
            if not reservation.granted.is_set():
                raise Overloaded(
                    "Too many large photographs are in flight.", retry_after=MAX_WAIT
                ) from None

    def _grant(self) -> None:
        for reservation in list(self._waiting):
            if not self._used or self._used + reservation.size <= self._limit:
                self._waiting.remove(reservation)
                self._used += reservation.size
                reservation.granted.set()
