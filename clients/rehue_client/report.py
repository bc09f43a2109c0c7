"""What `rehue colorize` prints: progress, outcomes, failures and a summary."""

import asyncio
import contextlib
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import TextIO

from rehue_client.checks import describe_error
from rehue_client.errors import RehueError
from rehue_client.outputs import Job
from rehue_client.picture import Picture

LINE_INTERVAL = 10.0  # seconds between progress lines where there is no terminal
UPDATE_INTERVAL = 0.2  # seconds between updates of the line in a terminal


class Report:
    """Counts outcomes and prints them.

    Args:
        json_lines: print each outcome to standard output as a JSON object.
        quiet: print failures only.
        failures: file for a line per failure: the source, a tab and the reason.
        summary: where the summary goes; standard error if pictures or JSON go to
            standard output.
    """

    def __init__(
        self,
        *,
        json_lines: bool = False,
        quiet: bool = False,
        failures: TextIO | None = None,
        summary: TextIO | None = None,
    ) -> None:
        self.colorized_sources: list[Path] = []
        self.skipped = 0
        self.failed: list[tuple[Path, str]] = []
        self.stopped: str | None = None
        self._json_lines = json_lines
        self._quiet = quiet
        self._failures = failures
        self._summary = summary or sys.stdout
        self._start = time.monotonic()
        self._total = 0

    @property
    def colorized(self) -> int:
        return len(self.colorized_sources)

    def add_colorized(self, job: Job, picture: Picture) -> None:
        self.colorized_sources.append(job.source)
        if picture.dropped and not self._quiet:
            print(f"{job.source}: not kept: {', '.join(picture.dropped)}", file=sys.stderr)
        self._print_json(
            job, "colorized",
            model=picture.model, request_id=picture.request_id, ms=round(picture.timings.total, 2),
            **({"dropped": list(picture.dropped)} if picture.dropped else {}),
        )  # fmt: skip

    def add_skipped(self, job: Job) -> None:
        self.skipped += 1
        self._print_json(job, "skipped")

    def add_planned(self, job: Job) -> None:
        """Print what would be done (``--dry-run``)."""
        if self._json_lines:
            self._print_json(job, "planned")
        else:
            print(f"{job.source} -> {job.output}")

    def add_failed(self, job: Job, error: RehueError | str) -> None:
        message = error if isinstance(error, str) else describe_error(error)
        self.failed.append((job.source, message))
        if self._failures is not None:
            print(job.source, " ".join(message.split()), sep="\t", file=self._failures, flush=True)
        self._print_json(
            job, "failed",
            reason=getattr(error, "reason", "") or None,
            message=message,
            request_id=getattr(error, "request_id", None),
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def show_progress(self, total: int) -> AsyncIterator[None]:
        """Show a line that changes in a terminal, and otherwise a line every ten seconds."""
        self._total = total
        if self._quiet:
            yield
            return
        # In the same terminal, JSON lines would end up in the middle of one that changes.
        changes = sys.stderr.isatty() and not (self._json_lines and sys.stdout.isatty())
        lines = asyncio.create_task(self._update_line() if changes else self._print_lines())
        try:
            yield
        finally:
            lines.cancel()
            if changes:
                _overwrite_line(self._describe_progress(), end="\n")

    def print_summary(self, left_out: Counter[str]) -> None:
        """Print the counts, and each failure to standard error."""
        counts = [f"{self.colorized} colorized"]
        if self.skipped:
            counts.append(f"{self.skipped} already there")
        if self.failed:
            counts.append(f"{len(self.failed)} failed")
        pending = self._total - self._count_finished()
        if pending:
            counts.append(f"{pending} not done")
        if not self._quiet:
            seconds = time.monotonic() - self._start
            self._print_counts(f"{', '.join(counts)} in {seconds:.1f} s", left_out)
        self._print_failures()

    def print_plan(self, planned: int, left_out: Counter[str]) -> None:
        """Print the counts of ``--dry-run``."""
        skipped = f", {self.skipped} already there" if self.skipped else ""
        self._print_counts(f"{planned} to colorize{skipped}", left_out)
        self._print_failures()

    def _print_counts(self, counts: str, left_out: Counter[str]) -> None:
        print(counts, file=self._summary)
        if left_out:
            print(f"left out: {describe_left_out(left_out)}", file=self._summary)
        self._summary.flush()

    def _print_failures(self) -> None:
        for path, message in self.failed:
            print(f"failed: {path}: {message}", file=sys.stderr)
        if self.stopped and self._total > self._count_finished():
            print(f"stopped: {self.stopped}", file=sys.stderr)

    def _count_finished(self) -> int:
        return self.colorized + len(self.failed) + self.skipped

    def _print_json(self, job: Job, status: str, **details: object) -> None:
        if self._json_lines:
            record = {"source": str(job.source), "output": str(job.output), "status": status}
            print(json.dumps({**record, **details}), flush=True)

    async def _update_line(self) -> None:
        while True:
            _overwrite_line(self._describe_progress())
            await asyncio.sleep(UPDATE_INTERVAL)

    async def _print_lines(self) -> None:
        while True:
            await asyncio.sleep(LINE_INTERVAL)
            print(self._describe_progress(), file=sys.stderr, flush=True)

    def _describe_progress(self) -> str:
        """Return for example ``120 of 500 done, 2 failed, 3.1/s, 0:02:02 left``."""
        finished = self._count_finished()
        rate = (finished - self.skipped) / (time.monotonic() - self._start)
        pending = self._total - finished
        left = f"{timedelta(seconds=round(pending / rate))} left" if rate else "waiting"
        counts = f"{finished} of {self._total} done, {len(self.failed)} failed"
        return f"{counts}, {rate:.1f}/s, {left}"


def describe_left_out(left_out: Counter[str]) -> str:
    """Return for example ``2 .txt file, 1 pipe``."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))


def _overwrite_line(text: str, end: str = "") -> None:
    """Write a line over the one in the terminal, without a line break in it."""
    width = shutil.get_terminal_size().columns - 1
    print(f"\r{text[:width]:{width}}", end=end, file=sys.stderr, flush=True)
