"""Bulk work yields to others on the same Triton."""

import asyncio

import numpy as np
from paths import MODELS

from rehue_core.spec import read_model_contract
from rehue_serve.background import MAX_PAUSE, MAX_PHOTOGRAPHS, YIELD, BackgroundPace
from rehue_serve.queue import PhotographQueue, QueuedPhotograph


def test_calls_to_an_idle_triton_follow_each_other() -> None:
    pace = BackgroundPace()
    assert [pace.choose_pause("a", 4, seconds) for seconds in (0.1, 0.11, 0.09, 0.12)] == [0.0] * 4


def test_a_call_that_waited_is_followed_by_a_pause() -> None:
    pace = BackgroundPace()
    pace.choose_pause("a", 4, 0.1)
    assert abs(pace.choose_pause("a", 4, 0.2) - YIELD * 0.1) < 1e-9
    assert pace.choose_pause("a", 4, 9.0) == MAX_PAUSE


def test_tritons_and_sizes_of_calls_are_told_apart() -> None:
    pace = BackgroundPace()
    pace.choose_pause("fast", 4, 0.1)
    assert pace.choose_pause("slow", 4, 0.5) == 0
    assert pace.choose_pause("fast", 1, 0.5) == 0


async def test_calls_in_the_background_are_small() -> None:
    spec = read_model_contract(MODELS / "seed/configs/cpu.pbtxt")
    queue = PhotographQueue()
    for _ in range(spec.max_batch):
        result = asyncio.get_running_loop().create_future()
        queue.put(QueuedPhotograph(spec, np.zeros((1, 1, 1), spec.input_type), 1.0, result))
    assert len(queue.take_batch(MAX_PHOTOGRAPHS)) == MAX_PHOTOGRAPHS
    assert len(queue.take_batch()) == spec.max_batch - MAX_PHOTOGRAPHS
