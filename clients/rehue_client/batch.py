"""Colorize many photographs from the command line."""

import asyncio
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rehue_client.async_client import AsyncClient
from rehue_client.checks import FATAL_ERRORS, check_server, describe_error, is_output_lost
from rehue_client.errors import RehueError
from rehue_client.journal import Journal
from rehue_client.outputs import STDIN, STDOUT, Job
from rehue_client.picture import Options, Picture
from rehue_client.report import Report
from rehue_client.threads import start_daemon_thread

SAVE_GRACE = 2.0  # seconds for a picture that is being written when the run is stopped


class Stopped(Exception):
    """No further photograph can succeed; the message says why."""


@dataclass
class Batch:
    """The jobs of one `rehue colorize`.

    Args:
        folder: the output folder; None if the output is one file.
        resume: skip what the journal says is done.
    """

    jobs: list[Job]
    folder: Path | None
    options: Options
    report: Report
    concurrency: int = 8
    resume: bool = False
    journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        self.journal = Journal(self.folder, self.options)

    async def check(self, client: AsyncClient) -> str | None:
        """Check the server, key, model and options with a tiny image.

        A single photograph is sent without: it finds the same problems.

        Returns:
            name and version of the model, or None if nothing was sent.

        Raises:
            RehueError: the server refuses the options, or does not answer.
        """
        if len(self.jobs) == 1 and not self.resume:
            return None
        return await check_server(client, self.options)

    def select_pending(self, model: str | None) -> list[Job]:
        """Return the jobs to do; report those that cannot be done, or are done already.

        Raises:
            OSError: the journal cannot be read.
        """
        if self.resume:
            self.journal.load()
        return list(self._filter_jobs(model))

    async def run(self, client: AsyncClient, jobs: list[Job]) -> None:
        """Colorize ``jobs``. A failure does not stop the others, unless all would fail."""
        queue = iter(jobs)
        async with self.report.show_progress(len(self.jobs)):
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.concurrency, len(jobs))):
                        group.create_task(self._work(client, queue))
            except* Stopped as stopped:
                self.report.stopped = str(stopped.exceptions[0])
            except* BrokenPipeError:
                self.report.stopped = "standard output was closed (--json)"
                # So that Python's own flush at the exit does not fail again.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _filter_jobs(self, model: str | None) -> Iterator[Job]:
        for job in self.jobs:
            if job.problem is not None:
                self.report.add_failed(job, job.problem)
            elif self.resume and self.journal.is_done(job, model):
                self.report.add_skipped(job)
            else:
                yield job

    async def _work(self, client: AsyncClient, queue: Iterator[Job]) -> None:
        for job in queue:
            await self._colorize(client, job)

    async def _colorize(self, client: AsyncClient, job: Job) -> None:
        source = sys.stdin.buffer if job.source == STDIN else job.source
        options = replace(self.options, format=job.format)
        description = self.journal.describe(job)
        try:
            picture = await client.colorize(source, **vars(options))
        except RehueError as error:
            self.report.add_failed(job, error)
            if isinstance(error, FATAL_ERRORS):
                raise Stopped(describe_error(error)) from error
            return
        try:
            await self._save_in_thread(job, picture, description)
        except (OSError, ValueError) as error:
            message = f"cannot write {job.output}: {getattr(error, 'strerror', None) or error}"
            self.report.add_failed(job, message)
            if isinstance(error, OSError) and is_output_lost(error, self.folder):
                raise Stopped(message) from error
        else:
            self.report.add_colorized(job, picture)

    async def _save_in_thread(
        self, job: Job, picture: Picture, description: dict[str, Any]
    ) -> None:
        # In a thread: a slow disk would block the event loop, and one that hangs must
        # not prevent an exit.
        work = start_daemon_thread(partial(self._save, job, picture, description))
        saved = asyncio.wrap_future(work)
        try:
            await asyncio.shield(saved)
        except asyncio.CancelledError:
            await asyncio.wait({saved}, timeout=SAVE_GRACE)
            if saved.done() and saved.exception() is None:
                self.report.add_colorized(job, picture)
            raise

    def _save(self, job: Job, picture: Picture, description: dict[str, Any]) -> None:
        if job.output == STDOUT:
            sys.stdout.buffer.write(picture.data)
            sys.stdout.buffer.flush()
        else:
            picture.save(job.output)
            self.journal.add(description, picture.model)
