"""Bulk work that leaves Tritons to a live service beside it.

Triton's own priorities are not used: any queue policy switches its batcher's prefetching off,
which costs a third to half of the throughput (docs/kubernetes.md). Instead, bulk work makes one
small call at a time to each Triton. A call that takes longer than it does on an idle Triton has
waited for the service's calls, and then the next one is made later. Congestion control that
yields works alike (LEDBAT, RFC 6817).
"""

from collections import defaultdict, deque

MAX_PHOTOGRAPHS = 4  # in one call, which the service's calls may have to wait for
SLACK = 0.5  # a call may take this share longer before it counts as having waited
YIELD = 4.0  # pause after a call, in multiples of the time that it waited
MAX_PAUSE = 1.0  # seconds
RECENT_CALLS = 1000  # of each size to one Triton, among which the shortest shows an idle Triton


class BackgroundPace:
    """Decides how long one client pauses between its calls to each Triton."""

    def __init__(self) -> None:
        self._durations: defaultdict[tuple[str, int], deque[float]] = defaultdict(
            lambda: deque(maxlen=RECENT_CALLS)
        )

    def choose_pause(self, address: str, photographs: int, seconds: float) -> float:
        """Return the pause after a call, in seconds.

        Args:
            address: of the Triton.
            photographs: in the call.
            seconds: that it took.
        """
        recent = self._durations[address, photographs]
        recent.append(seconds)
        shortest = min(recent)
        waited = seconds - shortest
        return 0.0 if waited < SLACK * shortest else min(MAX_PAUSE, YIELD * waited)
