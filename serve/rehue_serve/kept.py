"""Answers of networks to photographs that are being edited, kept for a few minutes.

A person who edits sends the same photograph again and again, with other choices; the network's
answer depends on the photograph and the look alone. The key has the photograph's digest: so there
is no token that could be guessed or lost, each replica can answer without knowing of the others,
and a caller without the photograph cannot ask for its colours.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

MAX_AGE = 300.0  # seconds

Key = tuple[str, int, str, str]  # SHA-256 of the file, page, model, look
Answer = tuple[NDArray[Any], str]  # a network's outputs of one look and the model's version


class KeptAnswers:
    """Bounded in memory and time. Belongs to one event loop.

    Args:
        limit: bytes of all outputs together; 0: nothing is kept.
    """

    def __init__(self, limit: int, get_time: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._get_time = get_time
        self._used = 0
        self._answers: OrderedDict[Key, tuple[float, Answer]] = OrderedDict()  # by age of use

    def get(self, key: Key) -> Answer | None:
        """Return the answer that was kept, if it is not too old."""
        self._drop_old()
        if key not in self._answers:
            return None
        self._answers.move_to_end(key)
        return self._answers[key][1]

    def put(self, key: Key, answer: Answer) -> None:
        """Keep an answer; those that were not used for the longest time make room."""
        self._remove(key)
        if answer[0].nbytes > self._limit:
            return
        self._answers[key] = self._get_time(), answer
        self._used += answer[0].nbytes
        while self._used > self._limit:
            self._remove(next(iter(self._answers)))

    def _drop_old(self) -> None:
        oldest = self._get_time() - MAX_AGE
        for key in [key for key, (kept, _) in self._answers.items() if kept < oldest]:
            self._remove(key)

    def _remove(self, key: Key) -> None:
        if key in self._answers:
            self._used -= self._answers.pop(key)[1][0].nbytes
