"""How many photographs the holder of an API key may send, in one replica.

Each replica counts for itself: a count that all share would put a network call and one more
service that can fail before every photograph. So an installation allows a key up to its quota
times the number of replicas, and a replica that is replaced starts anew.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from rehue_serve.errors import QuotaExceeded

DAY = 86400
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Quota:
    """The limits of one holder.

    Attributes:
        name: of the holder, for metrics; keys of the same name share the quota.
        rate: photographs a second; 0: no limit. After a pause, one second's worth comes at once.
        daily: photographs a day (UTC); 0: no limit.
    """

    name: str = ""
    rate: float = 0.0
    daily: int = 0


def parse_quota(words: list[str]) -> Quota:
    """Parse ``name=NAME rate=PHOTOGRAPHS_A_SECOND daily=PHOTOGRAPHS``, in any order.

    Raises:
        ValueError: a word is none of these, is there twice or has a wrong value; or there is a
            limit without a name. The message does not contain the words.
    """
    given = dict(word.partition("=")[::2] for word in words)
    if len(given) < len(words) or not given.keys() <= {"name", "rate", "daily"}:
        raise ValueError("after the key come name=, rate= and daily=, each at most once")
    quota = Quota(
        name=given.get("name", ""),
        rate=_parse_number("rate", given.get("rate", "0")),
        daily=int(_parse_number("daily", given.get("daily", "0"))),
    )
    if words and not NAME.fullmatch(quota.name):
        raise ValueError("name= is up to 63 letters, digits, dots, hyphens and underscores")
    return quota


def _parse_number(what: str, text: str) -> float:
    """Return a number from 0 on; digits and at most one point, as in 2.5."""
    if not re.fullmatch(r"\d{1,12}" if what == "daily" else r"\d{1,9}(\.\d{1,6})?", text):
        raise ValueError(f"{what}= must be a number, 0 or more")
    return float(text)


class _Use:
    """What the holder of a quota has used: tokens of the rate's bucket, and photographs today."""

    def __init__(self, quota: Quota, now: float) -> None:
        self.tokens = _get_capacity(quota)
        self.updated = now
        self.day = int(now // DAY)
        self.today = 0


class Quotas:
    """The use of all quotas. Belongs to one event loop."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        """Start without any use.

        Args:
            now: returns the Unix time in seconds.
        """
        self._now = now
        self._uses: dict[str, _Use] = {}

    def check(self, quota: Quota) -> None:
        """Refuse a photograph that `take` would refuse now, before its bytes are read.

        Raises:
            QuotaExceeded: with the time until the next photograph is allowed.
        """
        if quota.name:
            self._check(quota, self._refresh(quota))

    def take(self, quota: Quota, count: int = 1) -> None:
        """Count one photograph, or as many as it costs; the last may overdraw the quota.

        Raises:
            QuotaExceeded: it is not allowed, and not counted.
        """
        if not quota.name:
            return
        use = self._refresh(quota)
        self._check(quota, use)
        use.tokens -= count
        use.today += count
        _record_use(quota, "admitted")

    def _refresh(self, quota: Quota) -> _Use:
        now = self._now()
        use = self._uses.setdefault(quota.name, _Use(quota, now))
        # A clock that was set back adds nothing.
        use.tokens += max(0.0, now - use.updated) * quota.rate
        use.tokens = min(use.tokens, _get_capacity(quota))
        use.updated = now
        if use.day != int(now // DAY):
            use.day, use.today = int(now // DAY), 0
        return use

    def _check(self, quota: Quota, use: _Use) -> None:
        if quota.daily and use.today >= quota.daily:
            _record_use(quota, "daily")
            raise QuotaExceeded(
                f"This API key's {quota.daily} photographs for today (UTC) are used up.",
                retry_after=(use.day + 1) * DAY - use.updated,
            )
        if quota.rate and use.tokens < 1:
            _record_use(quota, "rate")
            raise QuotaExceeded(
                f"This API key may send {quota.rate:g} photographs per second.",
                retry_after=(1 - use.tokens) / quota.rate,
            )


def _get_capacity(quota: Quota) -> float:
    return max(1.0, quota.rate)


def _record_use(quota: Quota, outcome: str) -> None:
    # Imported late: the settings need this module before Ray's environment is set, and Ray's
    # metrics import Ray, which reads its token when it is imported.
    from rehue_serve import metrics

    metrics.record_key_use(quota.name, outcome)
