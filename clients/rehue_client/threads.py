"""Work that must not keep the program from exiting."""

import contextvars
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

IDLE_TIME = 1.0  # seconds after which a thread without work ends


class DaemonThreads:
    """Daemon threads: one for each piece of work at a time, reused when idle.

    Reading a pipe or an unresponsive network share can block forever. Executors wait
    for their threads when the program exits; daemon threads are abandoned.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0  # threads that wait for work that is not yet queued

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Run ``work`` in the caller's context (`contextvars`)."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        context = contextvars.copy_context()

        def run() -> None:
            try:
                result = context.run(work)
            except BaseException as error:  # noqa: BLE001 (raised where the result is read)
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            has_idle = self._idle > 0
            self._idle -= has_idle
        if not has_idle:
            threading.Thread(target=self._run, name="rehue", daemon=True).start()
        self._work.put(run)
        return future

    def _run(self) -> None:
        while True:
            try:
                run: Callable[[], Any] = self._work.get(timeout=IDLE_TIME)
            except queue.Empty:
                with self._lock:
                    if self._idle > 0:
                        self._idle -= 1
                        return
                continue  # work is about to be queued for this thread
            run()
            del run  # holds the source and the result
            with self._lock:
                self._idle += 1


_THREADS = DaemonThreads()
start_daemon_thread = _THREADS.start
