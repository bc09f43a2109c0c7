"""Training: an experiment in, checkpoints out, exactly resumable.

Batches and learning rate are pure functions of the step. Weights, optimizer, moving
average and history are in the checkpoint. So a run that was stopped ends with the
same weights as one that was not.
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
    """Train to the config's last step, to step `stop_at`, or for `minutes`.

    A run that has a checkpoint is resumed.

    Args:
        paths: where the photographs are; see `dataset.read_files`.
        runs: the run's files go to `runs/<name>`, decoded photographs to `runs/cache`.
        manifest: table of the photographs' licence classes, for configs with `classes`.

    Returns:
        The last checkpoint.
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
    """Yield the steps of a run from number `start` on."""
    number = first_example = 0
    for stage in config.stages:
        target_size = round(stage.size * OUTPUT_SCALE[config.model])
        maker = batches.ExampleMaker(stage.size, target_size, stage.crop, config.film, stage.whole)
        for _ in range(stage.steps):
            if number >= start:
                yield batches.TrainingStep(number, first_example, stage.batch, maker)
            number, first_example = number + 1, first_example + stage.batch


def _run_steps(
    run: Run, photographs: dataset.Dataset, journal: Journal, last: int, end: float
) -> None:
    config = run.config
    train_on, validate_on = photographs.split(config.validation, config.held_out)
    source = batches.Batches(photographs, train_on, config.seed, config.balance)
    stride = max(1, len(validate_on) // config.validate_on)
    validate_on = validate_on[::stride][: config.validate_on]
    steps = itertools.takewhile(
        lambda step: step.number < last and time.monotonic() < end,
        schedule_steps(config, run.step),
    )
    for step, batch in batches.prefetch(source, steps):
        record = run.train_step(step, batch)
        if run.step % config.validate_every == 0 or run.step == last:
            examples = [step.maker.make_center_example(photographs[i]) for i in validate_on]
            record |= run.validate(batches.stack_examples(examples), step.batch_size)
        journal.record_step(run, record, step.batch_size)
        if run.step % config.checkpoint_every == 0:
            run.save()
