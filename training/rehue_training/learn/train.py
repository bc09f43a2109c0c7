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
from rehue_training.network.models import OUTPUT_SCALE


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
    photographs = dataset.load_dataset(paths, cache=runs / "cache", short_side=config.short_side)
    console.print(str(photographs.report))
    if config.classes:
        photographs = photographs.select_classes(config.classes, manifest)
        console.print(f"{len(photographs)} of the classes {', '.join(config.classes)}")
    run = Run(config, folder)
    last = stop_at or config.steps
    console.print(f"{config.name}: step {run.step} of {config.steps}")
    with Journal(console, folder, run, last) as journal:
        _run_steps(run, photographs, journal, last, end)
    run.save()
    return checkpoint.load(run.path)


def schedule_steps(config: Config, start: int) -> Iterator[batches.TrainingStep]:
    """The steps of a run from number `start` on."""
    step = first = 0
    for stage in config.stages:
        target = round(stage.size * OUTPUT_SCALE[config.model])
        crops = batches.ExampleMaker(stage.size, target, stage.crop, config.film, stage.whole)
        for _ in range(stage.steps):
            if step >= start:
                yield batches.TrainingStep(step, first, stage.batch, crops)
            step, first = step + 1, first + stage.batch


def _run_steps(
    run: Run, photographs: dataset.Dataset, journal: Journal, last: int, end: float
) -> None:
    config = run.config
    train_on, validate_on = photographs.split(config.validation, config.held_out)
    source = batches.Batches(photographs, train_on, config.seed, config.balance)
    kept = validate_on[:: max(1, len(validate_on) // config.validate_on)][: config.validate_on]
    steps = itertools.takewhile(
        lambda item: item.step < last and time.monotonic() < end, schedule_steps(config, run.step)
    )
    for planned, batch in batches.prefetch(source, steps):
        record = run.train_step(planned, batch)
        if run.step % config.validate_every == 0 or run.step == last:
            middles = [planned.crops.make_center_example(photographs[index]) for index in kept]
            record |= run.validate(batches.stack_examples(middles), planned.size)
        journal.record_step(run, record, planned.size)
        if run.step % config.checkpoint_every == 0:
            run.save()
