"""Daemon threads: reused when idle, and never waited for by other work."""

import contextvars
import functools
import threading
import time

import pytest

from rehue_client import threads
from rehue_client.threads import DaemonThreads


def test_idle_threads_are_reused_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE_TIME", 0.2)
    pool = DaemonThreads()
    used = {pool.start(threading.get_ident).result(5) for _ in range(200)}
    assert len(used) <= 3  # one, but for moments in which it is not yet idle
    before = threading.active_count()
    time.sleep(1)
    assert threading.active_count() < before
    assert pool.start(lambda: "again").result(5) == "again"


def test_blocked_work_does_not_delay_other_work() -> None:
    pool = DaemonThreads()
    end = threading.Event()
    blocked = [pool.start(end.wait) for _ in range(50)]
    assert pool.start(lambda: "done").result(5) == "done"
    end.set()
    assert all(future.result(5) for future in blocked)


def test_work_from_many_threads_is_done_once() -> None:
    pool = DaemonThreads()
    done: list[int] = []

    def start_many(first: int) -> None:
        futures = [pool.start(functools.partial(done.append, n)) for n in range(first, first + 200)]
        for future in futures:
            future.result(10)

    starters = [threading.Thread(target=start_many, args=(200 * n,)) for n in range(5)]
    for thread in starters:
        thread.start()
    for thread in starters:
        thread.join()
    assert sorted(done) == list(range(1000))


def test_work_runs_in_the_callers_context_and_raises_there() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("the caller's")
    pool = DaemonThreads()
    assert pool.start(variable.get).result(5) == "the caller's"
    with pytest.raises(ZeroDivisionError):
        pool.start(lambda: 1 / 0).result(5)
