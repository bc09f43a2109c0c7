"""Training: one config in, checkpoints out, exactly resumable.

Batches and learning rate are pure functions of the step; weights, optimizer,
moving average and history lie in the checkpoint. A run that was killed
therefore goes on as if it had not been.
"""

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from rehue_training.data import batches, dataset
from rehue_training.learn import checkpoint
from rehue_training.learn.checkpoint import Checkpoint
from rehue_training.learn.config import Config
from rehue_training.learn.journal import Journal
from rehue_training.learn.run import Run
from rehue_training.network.models import ANSWER


def train(
    config: Config,
    paths: Sequence[Path],
    *,
    runs: Path,
    manifest: Path | None = None,
    stop_at: int | None = None,
    minutes: float = math.inf,
) -> Checkpoint:
    """Trains to the config's last step, or to `stop_at`, or for so many minutes.

    Goes on where the run was stopped, to the same weights as if it had not been.

    Everything lies under `runs/<name>`; decoded photographs under `runs/cache`.
    """
    console = Console()
    folder = runs / config.name
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * minutes
    photographs = dataset.photographs(paths, cache=runs / "cache", short_side=config.short_side)
    console.print(str(photographs.report))
    if config.classes:
        photographs = photographs.of_classes(config.classes, manifest)
        console.print(f"{len(photographs)} of the classes {', '.join(config.classes)}")
    run = Run(config, folder)
    last = stop_at or config.steps
    console.print(f"{config.name}: step {run.step} of {config.steps}")
    with Journal(console, folder, run, last) as journal:
        _loop(run, photographs, journal, last, end)
    run.save()
    return checkpoint.load(run.path)


def plan(config: Config, start: int) -> Iterator[batches.Planned]:
    """The steps of a run from number `start` on."""
    step = first = 0
    for stage in config.stages:
        target = round(stage.size * ANSWER[config.model])
        crops = batches.Crops(stage.size, target, stage.crop, config.film, stage.whole)
        for _ in range(stage.steps):
            if step >= start:
                yield batches.Planned(step, first, stage.batch, crops)
            step, first = step + 1, first + stage.batch


def _loop(
    run: Run, photographs: dataset.Photographs, journal: Journal, last: int, end: float
) -> None:
    config = run.config
    train_on, validate_on = photographs.split(config.validation, config.held_out)
    source = batches.Batches(photographs, train_on, config.seed, config.balance)
    kept = validate_on[:: max(1, len(validate_on) // config.validate_on)][: config.validate_on]
    steps = itertools.takewhile(
        lambda item: item.step < last and time.monotonic() < end, plan(config, run.step)
    )
    for planned, batch in batches.ahead(source, steps):
        record = run.learn(planned, batch)
        if run.step % config.validate_every == 0 or run.step == last:
            middles = [planned.crops.middle(photographs[index]) for index in kept]
            record |= run.validate(batches.stack(middles), planned.size)
        journal.tell(run, record, planned.size)
        if run.step % config.checkpoint_every == 0:
            run.save()
