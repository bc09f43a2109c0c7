"""The networks' answers that are kept while photographs are edited."""

import numpy as np

from rehue_serve.kept import MAX_AGE, KeptAnswers

ANSWER = np.zeros((2, 4, 4), np.float16), "1"  # 64 bytes


def test_answers_are_bounded_in_memory_and_time() -> None:
    now = 0.0
    kept = KeptAnswers(130, lambda: now)
    first, second, third = (("file", page, "rehue", "whole") for page in range(3))
    kept.put(first, ANSWER)
    kept.put(second, ANSWER)
    assert kept.get(first) is ANSWER
    kept.put(third, ANSWER)  # the one that was not used for the longest time makes room
    assert kept.get(second) is None
    assert kept.get(first) is kept.get(third) is ANSWER
    now = MAX_AGE + 1
    assert kept.get(first) is None
    kept.put(first, ANSWER)
    kept.put(first, ANSWER)
    kept.put(second, ANSWER)
    assert kept.get(first) is kept.get(second) is ANSWER  # neither is counted twice


def test_nothing_is_kept_without_memory() -> None:
    kept = KeptAnswers(0)
    kept.put(("file", 0, "rehue", "whole"), ANSWER)
    assert kept.get(("file", 0, "rehue", "whole")) is None
