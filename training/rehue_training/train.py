"""Training: one config in, checkpoints out, exactly resumable.

Batches and learning rate are pure functions of the step; weights, optimizer,
moving average and history lie in the checkpoint. A run that was killed
therefore goes on as if it had not been.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from rehue_training import batches, checkpoint, data
from rehue_training.checkpoint import Checkpoint
from rehue_training.config import Config
from rehue_training.journal import Journal
from rehue_training.models import ANSWER
from rehue_training.run import Run


def train(
    config: Config, paths: Sequence[Path], *, runs: Path, stop_at: int | None = None
) -> Checkpoint:
    """Trains to the config's last step, or to `stop_at`; goes on where a run stopped.

    Everything lies under `runs/<name>`; decoded photographs under `runs/cache`.
    """
    console = Console()
    folder = runs / config.name
    folder.mkdir(parents=True, exist_ok=True)
    photographs = data.photographs(paths, cache=runs / "cache", short_side=config.short_side)
    console.print(str(photographs.report))
    run = Run(config, folder)
    last = stop_at or config.steps
    console.print(f"{config.name}: step {run.step} of {config.steps}")
    with Journal(console, folder, run, last) as journal:
        _loop(run, photographs, journal, last)
    run.save()
    return checkpoint.load(run.path)


def plan(config: Config, start: int) -> Iterator[batches.Planned]:
    """The steps of a run from number `start` on."""
    step = first = 0
    for stage in config.stages:
        target = round(stage.size * ANSWER[config.model])
        crops = batches.Crops(stage.size, target, stage.crop, config.film)
        for _ in range(stage.steps):
            if step >= start:
                yield batches.Planned(step, first, stage.batch, crops)
            step, first = step + 1, first + stage.batch


def _loop(run: Run, photographs: data.Photographs, journal: Journal, last: int) -> None:
    config = run.config
    train_on, validate_on = photographs.split(config.validation)
    source = batches.Batches(photographs, train_on, config.seed)
    kept = validate_on[:: max(1, len(validate_on) // config.validate_on)][: config.validate_on]
    steps = (item for item in plan(config, run.step) if item.step < last)
    for planned, batch in batches.ahead(source, steps):
        record = run.learn(planned, batch)
        if run.step % config.validate_every == 0 or run.step == last:
            middles = [planned.crops.middle(photographs[index]) for index in kept]
            record |= run.validate(batches.stack(middles), planned.size)
        journal.tell(run, record, planned.size)
        if run.step % config.checkpoint_every == 0:
            run.save()
