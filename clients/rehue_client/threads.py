"""Work that must not keep the program from exiting."""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def start_daemon_thread(work: Callable[[], T]) -> Future[T]:
    """Run ``work`` in a new daemon thread, in the caller's context (`contextvars`).

    Reading a pipe or an unresponsive network share can block forever. Executors
    wait for their threads when the program exits, daemon threads are abandoned.
    """
    future: Future[T] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            result = context.run(work)
        except BaseException as error:  # noqa: BLE001 (raised where the result is read)
            future.set_exception(error)
        else:
            future.set_result(result)

    future.set_running_or_notify_cancel()
    threading.Thread(target=run, name="rehue", daemon=True).start()
    return future
