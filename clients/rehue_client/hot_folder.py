"""A hot folder: its photographs are colorized as they arrive, and then moved aside."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from rehue_client.async_client import AsyncClient
from rehue_client.batch import Batch
from rehue_client.outputs import Job, Search

DONE, FAILED = "done", "failed"  # folders in the hot folder, for sources that were colorized or not
INTERVAL = 1.0  # seconds between looks
SETTLED = 5.0  # seconds without a change after which a file is complete; scanners pause


class HotFolder:
    """The photographs of a folder that are complete, and the way out of it.

    Raises:
        ValueError: the folder is none, or the output is the folder itself.
    """

    def __init__(self, folder: Path, search: Callable[[], Search]) -> None:
        if not folder.is_dir():
            raise ValueError(f"--watch needs a folder; {folder} is not one")
        if search().out.resolve() == folder.resolve():
            raise ValueError("--watch needs an output folder other than the one it watches")
        self.folder = folder
        self._search = search
        # When each file was first seen as it is, in seconds of the monotonic clock.
        self._seen: dict[tuple[Path, int, int], float] = {}

    def list_complete(self) -> list[Job]:
        """Return the jobs whose files have not changed for `SETTLED` seconds."""
        before, self._seen, complete, now = self._seen, {}, [], time.monotonic()
        for job in self._search().list_jobs([self.folder]):
            if job.source.relative_to(self.folder).parts[0] in (DONE, FAILED):
                continue
            version = _read_version(job.source)
            if version is None:
                continue  # a program that wrote it has renamed it
            self._seen[version] = before.get(version, now)
            if now - self._seen[version] >= SETTLED:
                complete.append(job)
        return complete

    def move_aside(self, sources: Iterable[Path], name: str) -> None:
        """Move sources to the folder ``done`` or ``failed``, with their subfolders.

        One that has changed since it was listed stays, and is colorized again.
        """
        for source in sources:
            if _read_version(source) not in self._seen:
                continue
            target = self.folder / name / source.relative_to(self.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(_find_free_name(target))


def _read_version(path: Path) -> tuple[Path, int, int] | None:
    """Return what changes when a file does, or None if it is not there."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return path, status.st_size, status.st_mtime_ns


def _find_free_name(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


async def watch_folder(
    hot_folder: HotFolder, client: AsyncClient, create_batch: Callable[[list[Job]], Batch]
) -> str:
    """Colorize what arrives until no further photograph can succeed; return the reason."""
    while True:
        if jobs := hot_folder.list_complete():
            batch = create_batch(jobs)
            try:
                await batch.run(client, batch.select_pending(None))
            finally:
                _move_sources(hot_folder, batch)
            if batch.report.stopped:
                return batch.report.stopped
        await asyncio.sleep(INTERVAL)


def _move_sources(hot_folder: HotFolder, batch: Batch) -> None:
    report = batch.report
    hot_folder.move_aside(report.colorized_sources, DONE)
    if not report.stopped:  # else the server or the disk failed, not the photograph
        hot_folder.move_aside((source for source, _ in report.failed), FAILED)
    report.print_summary(Counter())
