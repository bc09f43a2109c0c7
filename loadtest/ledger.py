"""The outcome of every request, by second, merged over locust's workers.

Locust's own statistics contain neither the server's stage timings nor the results of
one stage of a shape; the ledger provides both.
"""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from rehue_client.picture import Timings

STAGES = tuple(field.name for field in fields(Timings))


class Outcome:
    """How a request can end."""

    COLORIZED = "colorized"
    DENIED = "denied"  # a bad input refused with the right reason: a success
    REFUSED = "refused"  # OVERLOADED
    FAILED = "failed"

    ALL = (COLORIZED, DENIED, REFUSED, FAILED)


@dataclass
class Tally:
    """Counts, times and stages of some requests.

    Attributes:
        outcomes: requests by `Outcome`.
        latency: answered photographs by milliseconds, rounded to three digits.
        stages: sums over the photographs whose answers have timings: milliseconds by
            stage, ``client`` for the latency of the user, and ``timed``, their number.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    latency: Counter[int] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: str, milliseconds: float, timings: Mapping[str, float]) -> None:
        """Add a request; its latency and timings count if it is COLORIZED."""
        self.outcomes[outcome] += 1
        if outcome != Outcome.COLORIZED:
            return
        self.latency[round_milliseconds(milliseconds)] += 1
        if timings:
            self.stages.update({stage: timings.get(stage, 0.0) for stage in STAGES})
            self.stages.update({"client": milliseconds, "timed": 1})

    def merge(self, other: "Tally") -> None:
        """Add the requests of another tally."""
        self.outcomes.update(other.outcomes)
        self.latency.update(other.latency)
        self.stages.update(other.stages)

    @property
    def requests(self) -> int:
        return self.outcomes.total()

    def compute_share(self, outcome: str) -> float:
        """Return the share of the requests with this outcome, 0 to 1."""
        return self.outcomes[outcome] / self.requests if self.requests else 0.0

    def compute_percentile(self, percent: float) -> float:
        """Return this percentile of the latencies in milliseconds; nan without an answer."""
        rank = percent / 100 * self.latency.total()
        count = 0
        for milliseconds in sorted(self.latency):
            count += self.latency[milliseconds]
            if count >= rank:
                return float(milliseconds)
        return math.nan

    def compute_means(self) -> dict[str, float]:
        """Return the mean milliseconds of each stage and of ``elsewhere``.

        ``elsewhere`` is the rest of the latency: queues, protocols, network. The result is
        empty if no answer has timings.
        """
        timed = self.stages["timed"]
        if not timed:
            return {}
        means = {stage: self.stages[stage] / timed for stage in STAGES}
        return means | {"elsewhere": self.stages["client"] / timed - sum(means.values())}


class Ledger:
    """A `Tally` for each second of Unix time.

    Workers send theirs to the master with locust's reports, so their clocks have to agree
    to within about a second.
    """

    def __init__(self) -> None:
        self.seconds: dict[int, Tally] = {}
        self.started = self.stopped = 0.0  # Unix time

    def add(self, outcome: str, milliseconds: float, timings: Mapping[str, float]) -> None:
        """Add a request that ends now."""
        self._get_tally(int(time.time())).add(outcome, milliseconds, timings)

    def sum_between(self, start: float, end: float) -> Tally:
        """Return the tally of the requests that ended from ``start`` up to ``end`` (Unix time)."""
        total = Tally()
        for second, tally in self.seconds.items():
            if start <= second < end:
                total.merge(tally)
        return total

    def drain(self) -> list[Any]:
        """Remove everything and return it as plain values, for `merge` in another process."""
        rows = [
            [second, dict(tally.outcomes), list(tally.latency.items()), dict(tally.stages)]
            for second, tally in self.seconds.items()
        ]
        self.seconds.clear()
        return rows

    def merge(self, rows: Iterable[Any]) -> None:
        """Add what another ledger drained."""
        for second, outcomes, latency, stages in rows:
            pairs: Counter[int] = Counter({int(key): int(count) for key, count in latency})
            self._get_tally(int(second)).merge(Tally(Counter(outcomes), pairs, Counter(stages)))

    def _get_tally(self, second: int) -> Tally:
        return self.seconds.setdefault(second, Tally())


def round_milliseconds(milliseconds: float) -> int:
    """Round to three digits and to whole milliseconds, at least 1."""
    rounded = max(1, round(milliseconds))
    unit: int = 10 ** max(0, len(str(rounded)) - 3)
    return round(rounded / unit) * unit
