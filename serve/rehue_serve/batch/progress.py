"""Progress of a bulk job on standard error: a bar on a terminal, else a line every 10 s."""

import contextlib
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from rehue_serve.batch.manifest import Record

LINE_INTERVAL = 10.0  # seconds between lines
BAR_INTERVAL = 0.5  # seconds between two updates of the bar
RATE_WINDOW = 60.0  # seconds over which the rate is measured
RATE_STEP = 0.5  # seconds between two counts in it
MOST_LISTED = 20  # failures on the terminal; the report and the manifest have more


class JobProgress:
    """Counts the photographs of one run.

    Attributes:
        total: photographs to do; None while they are being counted.
        first_failed: records of the first failures.
    """

    def __init__(self) -> None:
        self.total: int | None = None
        self.done = 0
        self.failed: Counter[str] = Counter()  # by reason
        self.first_failed: list[Record] = []
        self.began = time.monotonic()
        self._recent: deque[tuple[float, int]] = deque([(self.began, 0)])

    @property
    def finished(self) -> int:
        return self.done + self.failed.total()

    def add(self, record: Record) -> None:
        if record.failed:
            self.failed[record.reason] += 1
            if len(self.first_failed) < MOST_LISTED:
                self.first_failed.append(record)
        else:
            self.done += 1
        now = time.monotonic()
        if now - self._recent[-1][0] >= RATE_STEP:
            self._recent.append((now, self.finished))
        while self._recent[0][0] < now - RATE_WINDOW and len(self._recent) > 1:
            self._recent.popleft()

    @property
    def rate(self) -> float:
        """Photographs/s in the last minute."""
        then, finished = self._recent[0]
        return (self.finished - finished) / max(0.001, time.monotonic() - then)

    def describe(self) -> str:
        """Return for example ``120 of 5,000 done, 2 failed, 31.0/s, 2 min left``."""
        total = "" if self.total is None else f" of {self.total:,}"
        words = [f"{self.finished:,}{total} done", f"{self.failed.total():,} failed"]
        if rate := self.rate:
            words.append(f"{rate:.1f}/s")
        if self.total is None:
            words.append("counting")
        elif rate:
            words.append(f"{describe_duration((self.total - self.finished) / rate)} left")
        return ", ".join(words)

    @contextlib.contextmanager
    def show(self) -> Iterator[None]:
        """Show progress until the block ends."""
        console = Console(stderr=True)
        ended = threading.Event()
        show = self._show_bar if console.is_terminal else self._print_lines
        thread = threading.Thread(target=show, args=(console, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _print_lines(self, _: Console, ended: threading.Event) -> None:
        while not ended.wait(LINE_INTERVAL):
            print(self.describe(), file=sys.stderr, flush=True)

    def _show_bar(self, console: Console, ended: threading.Event) -> None:
        columns = (BarColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(self.describe(), total=None)
            while not ended.wait(BAR_INTERVAL):
                bar.update(
                    task, completed=self.finished, total=self.total, description=self.describe()
                )


def describe_failures(records: Iterable[Record]) -> list[str]:
    """Return a line for each failure, for the terminal."""
    return [f"  {record.source}: {record.reason}: {record.message}" for record in records]


def describe_left_out(files: Mapping[str, int]) -> str:
    """Return for example ``left out: 2 .bmp, 1 .txt``.

    Args:
        files: that are not photographs, by suffix.
    """
    return "left out: " + ", ".join(f"{count:,} {kind}" for kind, count in sorted(files.items()))


def describe_bytes(count: int) -> str:
    """Return a number of bytes in words: ``20 MB``, ``3.1 GB``."""
    return f"{count / 1e6:,.0f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"


def describe_duration(seconds: float) -> str:
    """Return a duration in words: ``40 s``, ``12 min``, ``3.5 h``, ``2.1 days``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
