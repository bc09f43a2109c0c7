"""One worker of a bulk job: reads, colorizes and writes photographs, many at a time.

A photograph goes through the server's own `Pipeline` and `TritonClient`.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from rehue_serve import images
from rehue_serve.admission import Admission
from rehue_serve.batch.crashes import MOST_CRASHES, CrashWatch
from rehue_serve.batch.manifest import (
    DONE,
    FAILED,
    RETRIED,
    SKIPPED,
    Recipe,
    Record,
    hash_name,
    hash_version,
)
from rehue_serve.batch.options import Options
from rehue_serve.batch.pending import parse_window
from rehue_serve.batch.sources import Photograph, choose_format
from rehue_serve.batch.stores import DISK_ERRORS, describe_os_error, get_store, join_location
from rehue_serve.errors import RehueError, get_reason_name
from rehue_serve.memory import MemoryBudget
from rehue_serve.parameters import ColorizeParameters
from rehue_serve.pipeline import Colorized, Pipeline
from rehue_serve.triton import build_triton_client

T = TypeVar("T")

ATTEMPTS = 4  # for one photograph while others succeed
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0  # seconds between two attempts
MOST_STORE_THREADS = 32
STORE_REASONS = ("UNREADABLE", "UNWRITABLE")


@dataclass
class Failure(Exception):  # named for what happened
    """One failed attempt for a photograph.

    Attributes:
        final: another attempt cannot succeed.
        wait: seconds until the next attempt makes sense; None: the usual ones.
    """

    reason: str
    message: str
    final: bool = False
    wait: float | None = None


class Stopped(Exception):
    """No photograph can succeed at the moment; the message says why."""


class BatchColorizer:
    """Colorizes windows of photographs; Ray Data calls it in an event loop of its own."""

    def __init__(self, options: Options, recipe: Recipe) -> None:
        self._options = options
        self._recipe = recipe
        self._parameters = json.loads(recipe.parameters)
        self._limits = options.limits
        self._slots = asyncio.Semaphore(self._limits.concurrency)
        self._memory = MemoryBudget(options.settings.upload_memory)
        self._starting, self._alone = asyncio.Lock(), asyncio.Lock()
        self._crashes = CrashWatch(options.run)
        self._pipeline: Pipeline | None = None
        self._stores = ThreadPoolExecutor(min(self._limits.concurrency, MOST_STORE_THREADS))
        self._next_start = 0.0  # loop time
        self._last_success = 0.0  # loop time
        self._store_failures = 0  # in a row
        self._stopped = ""

    async def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Colorize one window.

        Args:
            batch: one row; its column ``window`` holds the window of `list_windows`.

        Returns:
            One row: ``records``, a JSON list; and ``stopped``, why the job cannot go on.
        """
        await self._start()
        # Ray passes an empty batch on when there is nothing to do.
        windows = batch.get("window", ())
        photographs = [p for window in windows for p in parse_window(str(window))]
        records = await asyncio.gather(*map(self._process, photographs))
        done = json.dumps([asdict(record) for record in records if record is not None])
        return {"records": [done], "stopped": [self._stopped]}

    async def _start(self) -> None:
        async with self._starting:
            if self._pipeline is None:
                settings = self._options.settings
                background = self._limits.background
                self._triton = build_triton_client(settings, background=background)
                await self._triton.start()
                self._pipeline = Pipeline(settings, self._triton, Admission(settings))

    async def close(self) -> None:
        if self._pipeline is not None:
            self._pipeline.close()
            await self._triton.close()
        self._stores.shutdown(wait=False)

    async def _process(self, photograph: Photograph) -> Record | None:
        """Do one photograph; returns None if the job stops before it is done."""
        record = Record(
            source=photograph.name, output=photograph.output, status=FAILED,
            source_bytes=photograph.size, source_version=photograph.version,
            model=self._recipe.model, parameters=self._recipe.parameters,
            run=self._options.run, key=hash_name(photograph.name),
            fingerprint=hash_version(photograph, self._recipe),
        )  # fmt: skip
        if photograph.problem:
            return _finish(record, reason=photograph.reason, message=photograph.problem)
        crashes = self._crashes.count_crashes(record.key)
        if crashes >= MOST_CRASHES:
            return _finish(record, reason="CRASHED", message="the process that read it died")
        async with self._take_places(self._limits.concurrency if crashes else 1):
            await self._wait_for_turn()
            try:
                if self._options.skip_existing and await self._is_there(photograph):
                    return _finish(record, status=SKIPPED)
                with self._crashes.watch(record.key):
                    return await self._try_repeatedly(photograph, record)
            except Stopped as stopped:
                self._stopped = self._stopped or str(stopped)
                return None

    @contextlib.asynccontextmanager
    async def _take_places(self, count: int) -> AsyncIterator[None]:
        """Hold places of the photographs in flight during the block; all of them: alone."""
        async with contextlib.AsyncExitStack() as stack:
            if count > 1:  # two of them would wait for each other
                await stack.enter_async_context(self._alone)
            for _ in range(count):
                await stack.enter_async_context(self._slots)
            yield

    async def _wait_for_turn(self) -> None:
        """Keep to the job's rate, of which each worker has an equal share."""
        if not self._limits.rate:
            return
        now = asyncio.get_running_loop().time()
        start = max(now, self._next_start)
        self._next_start = start + self._limits.workers / self._limits.rate
        await asyncio.sleep(start - now)

    async def _try_repeatedly(self, photograph: Photograph, record: Record) -> Record:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for attempt in itertools.count(1):
            if self._stopped:
                raise Stopped(self._stopped)
            try:
                done = await self._colorize(photograph, record)
            except Failure as failure:
                if failure.final or self._must_give_up(failure, attempt, began):
                    return self._give_up(failure, record)
                wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(attempt - 1, 10))
                await asyncio.sleep(failure.wait or wait)
            else:
                self._last_success = loop.time()
                self._store_failures = 0
                return done
        raise AssertionError  # the loop has no end

    def _must_give_up(self, failure: Failure, attempt: int, began: float) -> bool:
        """Whether a failed attempt was a photograph's last.

        While no other photograph succeeds either, a Triton or a store may just be restarting.

        Raises:
            Stopped: no Triton answered for as long as the job waits.
        """
        if failure.reason == "OVERLOADED":
            return False
        if failure.reason in ("INTERNAL", "DEADLINE_EXCEEDED") or self._last_success > began:
            return attempt >= ATTEMPTS
        if asyncio.get_running_loop().time() - began < self._limits.patience:
            return False
        if failure.reason == "UNAVAILABLE":
            raise Stopped(f"no Triton answered for {self._limits.patience:.0f} s")
        return True

    def _give_up(self, failure: Failure, record: Record) -> Record:
        """Record a failure.

        Raises:
            Stopped: as many photographs as are in flight could not be read or written.
        """
        if failure.reason in STORE_REASONS:
            self._store_failures += 1
            if self._store_failures > self._limits.concurrency:
                raise Stopped(f"nothing can be read or written any more: {failure.message}")
        return _finish(record, reason=failure.reason, message=failure.message)

    async def _colorize(self, photograph: Photograph, record: Record) -> Record:
        """Make one attempt.

        Raises:
            Failure: with the reason.
            Stopped: the target's disk is full or read-only.
        """
        assert self._pipeline is not None
        started = time.monotonic()
        settings = self._options.settings
        format = choose_format(photograph.output)
        parameters = ColorizeParameters(**(self._parameters | {"format": format}))
        try:
            images.check_byte_limit(photograph.size, settings.max_bytes)
            async with self._memory.reserve(2 * max(0, photograph.size)):
                data, digest = await self._read(photograph)
                deadline = asyncio.get_running_loop().time() + settings.timeout
                colorized = await self._pipeline.colorize(
                    data, parameters.build_parameters(), deadline
                )
                written = await self._write(photograph, colorized)
        except RehueError as error:
            reason = get_reason_name(error)
            raise Failure(reason, str(error), reason not in RETRIED, error.retry_after) from None
        return _finish(
            replace(record, status=DONE), source_bytes=len(data), source_sha256=digest,
            output_bytes=len(colorized.data), output_sha256=written, model=colorized.model,
            pages=colorized.pages, ms=round((time.monotonic() - started) * 1000, 1),
        )  # fmt: skip

    async def _is_there(self, photograph: Photograph) -> bool:
        location = join_location(self._options.target, photograph.output)
        try:
            await self._run_in_thread(lambda: get_store(location).describe(location))
        except OSError:
            return False
        return True

    async def _read(self, photograph: Photograph) -> tuple[bytes, str]:
        def read() -> tuple[bytes, str]:
            data = get_store(photograph.location).read(photograph.location)
            return data, hashlib.sha256(data).hexdigest()

        try:
            return await self._run_in_thread(read)
        except OSError as error:
            final = isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError)
            raise Failure("UNREADABLE", describe_os_error(error), final) from error

    async def _write(self, photograph: Photograph, colorized: Colorized) -> str:
        target = self._options.target

        def write() -> str:
            if not self._options.dry_run:
                get_store(target).write(
                    join_location(target, photograph.output), colorized.data, target
                )
            return hashlib.sha256(colorized.data).hexdigest()

        try:
            return await self._run_in_thread(write)
        except OSError as error:
            message = describe_os_error(error)
            if error.errno in DISK_ERRORS:
                raise Stopped(f"cannot write to {target}: {message}") from error
            raise Failure("UNWRITABLE", message, isinstance(error, PermissionError)) from error

    async def _run_in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._stores, work)


def _finish(record: Record, **values: Any) -> Record:
    return replace(record, finished=time.time_ns() // 1_000_000, **values)
