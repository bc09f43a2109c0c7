"""Training: an experiment in, checkpoints out, exactly resumable.

Batches and learning rate are pure functions of the step. Weights, optimizer, moving
average and history are in the checkpoint. So a run that was stopped ends with the
same weights as one that was not.
"""

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from rehue_training.data import batches, dataset, squares
from rehue_training.errors import InputError
from rehue_training.learn import checkpoint
from rehue_training.learn.checkpoint import Checkpoint
from rehue_training.learn.config import Config
from rehue_training.learn.journal import Journal
from rehue_training.learn.run import PHOTOGRAPHS, Run
from rehue_training.network.models import OUTPUT_SCALE

MAX_ENLARGEMENT = 2
FEW = 8  # photographs for validation, below which a line says that they are few


def train(
    config: Config,
    paths: Sequence[Path],
    *,
    runs: Path,
    manifest: Path | None = None,
    stop_at: int | None = None,
    minutes: float = math.inf,
    should_stop: Callable[[], bool] = lambda: False,
) -> Checkpoint:
    """Train to the config's last step, to step `stop_at`, or for `minutes`.

    A run that has a checkpoint is resumed. Everything about the photographs and the
    experiment is checked before the first step.

    Args:
        paths: where the photographs are; see `files.read_files`.
        runs: the run's files go to `runs/<name>`, decoded photographs to `runs/cache`.
        manifest: table of the photographs' licence classes, for configs with `classes`.
        should_stop: called before each step; when it returns true, the run ends.

    Returns:
        The last checkpoint.

    Raises:
        InputError: the photographs, the experiment and the run's folder do not fit together.
        OSError: a file or folder cannot be read or written.
    """
    console = Console()
    end = time.monotonic() + 60 * minutes
    if config.classes and manifest is None:
        raise InputError(dataset.NO_MANIFEST)
    folder = runs / config.name
    folder.mkdir(parents=True, exist_ok=True)
    photographs = load_photographs(config, paths, runs=runs, manifest=manifest)
    split = dataset.split_names(photographs.names, config.validation, config.held_out)
    console.print(_describe_split(*map(len, split)))
    _record_photographs(folder, *split)
    run = Run(config, folder)
    last = stop_at or config.steps
    console.print(f"{config.name}: step {run.step} of {config.steps}")
    with Journal(console, folder, run, last) as journal:
        _run_steps(
            run, photographs, split, journal, last, lambda: should_stop() or time.monotonic() >= end
        )
    run.save()
    return checkpoint.load(run.path)


def load_photographs(
    config: Config, paths: Sequence[Path], *, runs: Path, manifest: Path | None
) -> dataset.Dataset | squares.Squares:
    """Load the photographs that the config's network learns from, decoded once under `runs`."""
    if config.model == "rehue-coarse":
        return squares.load_squares(paths, cache=runs / "squares")
    console = Console()
    photographs = dataset.load_dataset(paths, cache=runs / "cache", short_side=config.short_side)
    console.print(str(photographs.report))
    if config.classes:
        photographs = photographs.select_classes(config.classes, manifest)
        console.print(f"{len(photographs)} of the classes {', '.join(config.classes)}")
    check_stage_sizes(config, photographs)
    return photographs


def check_stage_sizes(config: Config, photographs: dataset.Dataset) -> None:
    """Check that no stage trains on photographs enlarged more than `MAX_ENLARGEMENT` times.

    Raises:
        InputError: half of the photographs are smaller than that.
    """
    short_side = int(np.median(photographs.shapes.min(axis=1)))
    for number, stage in enumerate(config.stages, 1):
        if stage.size > MAX_ENLARGEMENT * short_side:
            raise InputError(
                f"stages: stage {number} has crops of {stage.size} pixels, but half of the "
                f"photographs have at most {short_side} on their short side (`short_side` keeps "
                f"{config.short_side})"
            )


def _describe_split(training: int, validation: int) -> str:
    hint = "" if validation >= FEW else ": too few to rely on its loss"
    return f"{training} for training, {validation} for validation{hint}"


def _record_photographs(folder: Path, training: list[int], validation: list[int]) -> None:
    """Record the number of photographs for the exported model's card."""
    counts = {"training": len(training), "validation": len(validation)}
    (folder / PHOTOGRAPHS).write_text(json.dumps(counts))


def schedule_steps(config: Config, start: int) -> Iterator[batches.TrainingStep]:
    """Yield the steps of a run from number `start` on."""
    number = first_example = 0
    for stage in config.stages:
        target_size = round(stage.size * OUTPUT_SCALE[config.model])
        options = (stage.size, target_size, stage.crop, config.film, stage.whole)
        maker = (
            squares.SquareMaker(*options, config.scans)
            if config.model == "rehue-coarse"
            else batches.ExampleMaker(*options)
        )
        for _ in range(stage.steps):
            if number >= start:
                yield batches.TrainingStep(number, first_example, stage.batch, maker)
            number, first_example = number + 1, first_example + stage.batch


def _run_steps(
    run: Run,
    photographs: dataset.Dataset | squares.Squares,
    split: tuple[list[int], list[int]],
    journal: Journal,
    last: int,
    should_stop: Callable[[], bool],
) -> None:
    config = run.config
    train_on, validate_on = split
    source = batches.Batches(photographs, train_on, config.seed, config.balance)
    stride = max(1, len(validate_on) // config.validate_on)
    validate_on = validate_on[::stride][: config.validate_on]
    steps = itertools.takewhile(
        lambda step: step.number < last and not should_stop(),
        schedule_steps(config, run.step),
    )
    for step, batch in batches.prefetch(source, steps):
        record = run.train_step(step, batch)
        if run.step % config.validate_every == 0 or run.step == last:
            examples = [step.maker.make_center_example(source.dataset[i]) for i in validate_on]
            record |= run.validate(batches.stack_examples(examples), step.batch_size)
        journal.record_step(run, record, step.batch_size)
        if run.step % config.checkpoint_every == 0:
            run.save()
