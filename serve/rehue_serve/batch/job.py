"""Run a bulk job: check, colorize what is pending, and make sure that nothing is missing."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from rehue_serve.batch.checks import check_collisions, check_locations, check_model
from rehue_serve.batch.dataset import Outcome, run_dataset
from rehue_serve.batch.index import Index
from rehue_serve.batch.lock import TargetLock, hold_target
from rehue_serve.batch.manifest import Recipe, Writer, create_run_name
from rehue_serve.batch.options import Limits, Options
from rehue_serve.batch.pending import Counts, count_photographs, list_pending
from rehue_serve.batch.pictures import Pictures, verify_pictures
from rehue_serve.batch.progress import JobProgress
from rehue_serve.batch.report import write_report
from rehue_serve.batch.runtime import provide_ray, provide_triton
from rehue_serve.batch.sources import Photograph
from rehue_serve.batch.stores import DISK_ERRORS, describe_os_error

ListPending = Callable[[], Iterator[Photograph]]

FLUSH_INTERVAL = 1.0  # seconds between two parts of the manifest, unless there is much to write
MOST_PASSES = 3  # over the source; the later ones do what was added or lost meanwhile


@dataclass
class Summary:
    """The outcome of a run.

    Attributes:
        counts: photographs of the source, in all runs.
        left_out: files of the source that are not photographs, by suffix.
        stopped: why the job ended before its end; empty if it did not.
        report: location of the report; empty if it could not be written.
    """

    progress: JobProgress = field(default_factory=JobProgress)
    counts: Counts = field(default_factory=Counts)
    left_out: dict[str, int] = field(default_factory=dict)
    stopped: str = ""
    seconds: float = 0.0
    report: str = ""


def run_job(options: Options) -> Summary:
    """Run a job.

    Raises:
        BatchFailed: a check failed, another job has the target, or Triton or Ray do not start.
        OSError: the target's store does not answer.
    """
    check_locations(options)
    check_collisions(options)
    summary = Summary()
    with hold_target(options.target) as lock, provide_triton(options) as options:
        recipe = check_model(options)
        if options.verify:
            print(verify_pictures(options).describe(), file=sys.stderr)
            options = replace(options, run=create_run_name())
        run = Run(options, recipe, lock)
        index, pictures = Index(options.target, options.run), Pictures(options.target)
        list_all = partial(list_pending, options, recipe, index, pictures)
        if next(list_all(), None) is not None:
            with provide_ray(options):
                _colorize_all(run, list_all, summary)
                summary.report = _write_report(options, summary)
        else:
            summary.counts = count_photographs(options, recipe)
    summary.left_out = dict(options.source.left_out)
    return summary


@dataclass(frozen=True)
class Run:
    """One run of a job."""

    options: Options
    recipe: Recipe
    lock: TargetLock


def _write_report(options: Options, summary: Summary) -> str:
    with contextlib.suppress(OSError):  # a full disk, for example; the summary says what stopped
        return write_report(options, summary.counts, summary.stopped)
    return ""


def _colorize_all(run: Run, list_all: ListPending, summary: Summary) -> None:
    writer = Writer(run.options.target, run.options.run)
    progress = summary.progress
    try:
        with progress.show(), _count_in_background(list_all, progress):
            for _ in range(MOST_PASSES):
                _run_pass(run, writer, summary)
                summary.counts = count_photographs(run.options, run.recipe)
                if summary.stopped or not summary.counts.pending:
                    break
                progress.total = progress.finished + summary.counts.pending
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C, SIGTERM
        print(f"stopped: {progress.describe()}; start it again to continue", file=sys.stderr)
        raise
    finally:
        summary.seconds = time.monotonic() - progress.began
        if not run.lock.problem:  # else another job has the manifest
            with contextlib.suppress(OSError):  # the parts stay as they are
                writer.compact()


def _run_pass(run: Run, writer: Writer, summary: Summary) -> None:
    from ray.exceptions import RayError

    flushes = _Flushes(writer, run.options.limits)
    try:
        for outcome in run_dataset(run.options, run.recipe):
            _add_outcome(outcome, writer, summary.progress)
            summary.stopped = outcome.stopped or run.lock.problem or flushes.flush_when_due()
            if summary.stopped:
                break
    except RayError as error:
        summary.stopped = _describe_ray_error(error)
    finally:
        summary.stopped = flushes.flush() or summary.stopped


class _Flushes:
    """Writes parts of the manifest as they are due, and waits for a store that fails."""

    def __init__(self, writer: Writer, limits: Limits) -> None:
        self._writer = writer
        self._most = limits.workers * limits.concurrency  # a kill repeats about as many again
        self._patience = limits.patience
        self._succeeded = time.monotonic()

    def flush_when_due(self) -> str:
        """Write a part if one is due; returns why the job has to stop, empty if it need not."""
        is_early = time.monotonic() - self._succeeded < FLUSH_INTERVAL
        if is_early and self._writer.pending < self._most:
            return ""
        try:
            self._writer.flush()
        except OSError as error:
            is_lost = error.errno in DISK_ERRORS
            if is_lost or time.monotonic() - self._succeeded > self._patience:
                return f"the manifest cannot be written: {describe_os_error(error)}"
        else:
            self._succeeded = time.monotonic()
        return ""

    def flush(self) -> str:
        """Write what is left; returns why that is impossible, empty if it is not."""
        while self._writer.pending:
            self._succeeded = min(self._succeeded, time.monotonic() - FLUSH_INTERVAL)
            if problem := self.flush_when_due():
                return problem
            if self._writer.pending:
                time.sleep(FLUSH_INTERVAL)
        return ""


def _describe_ray_error(error: Exception) -> str:
    cause = getattr(error, "cause", error)
    if isinstance(cause, OSError):
        return f"the source cannot be listed: {describe_os_error(cause)}"
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return f"Ray failed: {lines[-1]}"


def _add_outcome(outcome: Outcome, writer: Writer, progress: JobProgress) -> None:
    for record in outcome.records:
        writer.add(record)
        progress.add(record)


@contextlib.contextmanager
def _count_in_background(list_all: ListPending, progress: JobProgress) -> Iterator[None]:
    """Count what is to do while it is being done, for the time left."""
    ended = threading.Event()

    def count() -> None:
        total = 0
        with contextlib.suppress(OSError):  # the run itself reports it
            for _ in list_all():
                total += 1
                if ended.is_set():
                    return
            progress.total = total

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
