"""Colorize many photographs from the command line: progress, failures, resume."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from rehue_client.async_client import AsyncClient
from rehue_client.errors import RehueError
from rehue_client.outputs import Job
from rehue_client.picture import Options, Result
from rehue_client.sources import Source


@dataclass
class Batch:
    """The jobs of one `rehue colorize` and their outcomes so far."""

    jobs: list[Job]
    options: Options
    concurrency: int = 8
    resume: bool = False
    colorized: int = 0
    skipped: int = 0
    failures: list[tuple[Path, str]] = field(default_factory=list)

    async def run(self, client: AsyncClient) -> None:
        """Colorize all pending jobs; failures do not stop the others."""
        pending: dict[Source, Job] = {job.source: job for job in self._select_pending()}
        with _create_progress() as progress:
            task = progress.add_task("colorizing", total=len(pending))
            results = client.colorize_many(
                iter(pending), concurrency=self.concurrency, **vars(self.options)
            )
            async with contextlib.aclosing(results):
                async for result in results:
                    await self._finish(pending[result.source], result)
                    progress.advance(task)

    def report(self, seconds: float) -> None:
        """Print the counts to standard output and the failures to standard error."""
        skipped = f", {self.skipped} already there" if self.skipped else ""
        failed = f", {len(self.failures)} failed" if self.failures else ""
        print(f"{self.colorized} colorized{skipped}{failed} in {seconds:.1f} s")
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        for path, reason in self.failures:
            console.print(f"failed: {path}: {reason}", markup=False)

    def _select_pending(self) -> Iterator[Job]:
        for job in self.jobs:
            if job.problem is not None:
                self.failures.append((job.source, job.problem))
            elif self.resume and job.output.exists():
                self.skipped += 1
            else:
                yield job

    async def _finish(self, job: Job, result: Result) -> None:
        if result.picture is None:
            self.failures.append((job.source, _describe_error(result.error)))
            return
        try:
            # In a thread, because a slow disk would block the event loop.
            await asyncio.to_thread(result.picture.save, job.output)
        except OSError as error:
            self.failures.append((job.source, f"cannot write {job.output}: {error.strerror}"))
        else:
            self.colorized += 1


def _describe_error(error: RehueError | None) -> str:
    request = getattr(error, "request_id", None)
    return f"{error} (request {request})" if request else str(error)


def _create_progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
