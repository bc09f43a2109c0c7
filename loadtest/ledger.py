"""What became of every request, second by second: merged over locust's workers.

Locust's own statistics hold neither the server's stages nor what happened in one
stage of a shape; both come from here.
"""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

STAGES = ("decode", "prepare", "infer", "color", "encode")  # as the server names them


class Outcome:
    """How a request can end."""

    COLORIZED = "colorized"
    DENIED = "denied"  # a bad input, refused for the right reason: a success
    REFUSED = "refused"  # OVERLOADED
    FAILED = "failed"

    ALL = (COLORIZED, DENIED, REFUSED, FAILED)


@dataclass
class Tally:
    """Counts, times and stages of some requests.

    Attributes:
        outcomes: requests by `Outcome`.
        latency: answered photographs by milliseconds, rounded to three digits.
        stages: milliseconds by stage, and ``client`` for what the user waited, summed
            over the photographs whose answer held timings; ``timed`` is their number.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    latency: Counter[int] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: str, milliseconds: float, timings: Mapping[str, float]) -> None:
        self.outcomes[outcome] += 1
        if outcome != Outcome.COLORIZED:
            return
        self.latency[rounded(milliseconds)] += 1
        if timings:
            self.stages.update({stage: timings.get(stage, 0.0) for stage in STAGES})
            self.stages.update({"client": milliseconds, "timed": 1})

    def merge(self, other: "Tally") -> None:
        self.outcomes.update(other.outcomes)
        self.latency.update(other.latency)
        self.stages.update(other.stages)

    @property
    def requests(self) -> int:
        return self.outcomes.total()

    def share(self, outcome: str) -> float:
        """Of all requests, 0 to 1."""
        return self.outcomes[outcome] / self.requests if self.requests else 0.0

    def percentile(self, percent: float) -> float:
        """Milliseconds within which so many of the answered photographs came; nan for none."""
        wanted = percent / 100 * self.latency.total()
        seen = 0
        for milliseconds in sorted(self.latency):
            seen += self.latency[milliseconds]
            if seen >= wanted:
                return float(milliseconds)
        return math.nan

    def means(self) -> dict[str, float]:
        """Milliseconds of each stage, and ``elsewhere``: queues, servers' own work, network.

        Empty where no answer held timings.
        """
        timed = self.stages["timed"]
        if not timed:
            return {}
        means = {stage: self.stages[stage] / timed for stage in STAGES}
        return means | {"elsewhere": self.stages["client"] / timed - sum(means.values())}


class Ledger:
    """A `Tally` for each second of the clock (Unix time).

    Workers send what they gathered to the master with locust's own reports, so their
    clocks have to agree to within a second or so.
    """

    def __init__(self) -> None:
        self.seconds: dict[int, Tally] = {}
        self.began = self.ended = 0.0  # Unix time

    def add(self, outcome: str, milliseconds: float, timings: Mapping[str, float]) -> None:
        self._at(int(time.time())).add(outcome, milliseconds, timings)

    def between(self, start: float, end: float) -> Tally:
        """Everything that ended from ``start`` up to ``end``, in Unix time."""
        whole = Tally()
        for second, tally in self.seconds.items():
            if start <= second < end:
                whole.merge(tally)
        return whole

    def drain(self) -> list[Any]:
        """What was gathered since the last time, as plain values for the wire."""
        sent = [
            [second, dict(tally.outcomes), list(tally.latency.items()), dict(tally.stages)]
            for second, tally in self.seconds.items()
        ]
        self.seconds.clear()
        return sent

    def merge(self, sent: Iterable[Any]) -> None:
        """Takes in what another ledger drained."""
        for second, outcomes, latency, stages in sent:
            pairs: Counter[int] = Counter({int(key): int(count) for key, count in latency})
            self._at(int(second)).merge(Tally(Counter(outcomes), pairs, Counter(stages)))

    def _at(self, second: int) -> Tally:
        return self.seconds.setdefault(second, Tally())


def rounded(milliseconds: float) -> int:
    """To three digits, at least whole milliseconds."""
    whole = max(1, round(milliseconds))
    unit: int = 10 ** max(0, len(str(whole)) - 3)
    return round(whole / unit) * unit
