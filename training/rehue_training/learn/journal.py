"""Logging of a run: a progress bar, its history, TensorBoard."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboard.summary import Writer

from rehue_training.learn.checkpoint import Record
from rehue_training.learn.run import Run, compute_learning_rate

Log = Callable[[Record], None]


class Journal:
    """Logs a run from its current step to `last`. A context manager."""

    def __init__(self, console: Console, folder: Path, run: Run, last: int) -> None:
        self.last = last
        self.log = _open_tensorboard(folder)
        self.bar = _make_progress_bar(console)
        self.task = self.bar.add_task(run.config.name, total=last, completed=run.step, note="")
        self.since, self.examples = time.monotonic(), 0

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def record_step(self, run: Run, record: Record, examples: int) -> None:
        """Count a step of so many examples; log it if that is due."""
        self.examples += examples
        due = run.step % run.config.log_every == 0 or run.step == self.last
        if due or "val_loss" in record:
            self._log_record(run, record)
        self.bar.update(self.task, completed=run.step)

    def _log_record(self, run: Run, record: Record) -> None:
        speed = self.examples / (time.monotonic() - self.since)
        rate = compute_learning_rate(run.config, run.step - 1)
        run.add_record({"rate": rate, "images_per_second": speed, **record})
        self.log(run.history[-1])
        self.bar.update(self.task, note=_format_losses(record, speed))
        self.since, self.examples = time.monotonic(), 0


def _format_losses(record: Record, speed: float) -> str:
    losses = " ".join(
        f"{name} {record[name]:.4f}" for name in ("loss", "val_loss") if name in record
    )
    return f"{losses} {speed:.1f} images/s"


def _make_progress_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def _open_tensorboard(folder: Path) -> Log:
    """Return a function that writes records for TensorBoard. Needs no TensorFlow."""
    writer = Writer(str(folder / "tensorboard"))

    def log(record: Record) -> None:
        for name, value in record.items():
            if name != "step":
                writer.add_scalar(name, np.float32(value), int(record["step"]))
        writer.flush()

    return log
