"""Many photographs from a terminal: progress, failures, and going on later."""

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
from rehue_client.picture import Options, Result, Source
from rehue_client.plan import Step


@dataclass
class Batch:
    """The work of one `rehue colorize`, and what has become of it so far."""

    steps: list[Step]
    options: Options
    concurrency: int = 8
    resume: bool = False
    done: int = 0
    skipped: int = 0
    failures: list[tuple[Path, str]] = field(default_factory=list)

    async def run(self, client: AsyncClient) -> None:
        """Colorizes what is to do and goes on after failures."""
        todo: dict[Source, Step] = {step.source: step for step in self._todo()}
        with _progress() as progress:
            task = progress.add_task("colorizing", total=len(todo))
            results = client.colorize_many(
                iter(todo), concurrency=self.concurrency, **vars(self.options)
            )
            async with contextlib.aclosing(results):
                async for result in results:
                    await self._take(todo[result.source], result)
                    progress.advance(task)

    def report(self, seconds: float) -> None:
        """What was done, to standard output, and what was not, to standard error."""
        skipped = f", {self.skipped} already there" if self.skipped else ""
        failed = f", {len(self.failures)} failed" if self.failures else ""
        print(f"{self.done} colorized{skipped}{failed} in {seconds:.1f} s")
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        for path, reason in self.failures:
            console.print(f"failed: {path}: {reason}", markup=False)

    def _todo(self) -> Iterator[Step]:
        for step in self.steps:
            if step.problem is not None:
                self.failures.append((step.source, step.problem))
            elif self.resume and step.output.exists():
                self.skipped += 1
            else:
                yield step

    async def _take(self, step: Step, result: Result) -> None:
        if result.picture is None:
            self.failures.append((step.source, _sentence(result.error)))
            return
        try:
            # A slow disk must not hold up the answers that come in meanwhile.
            await asyncio.to_thread(result.picture.save, step.output)
        except OSError as error:
            self.failures.append((step.source, f"cannot write {step.output}: {error.strerror}"))
        else:
            self.done += 1


def _sentence(error: RehueError | None) -> str:
    request = getattr(error, "request_id", None)
    return f"{error} (request {request})" if request else str(error)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
