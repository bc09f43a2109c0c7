"""A model's folder in Triton's repository: whose run it is, its configurations and its card.

The configurations are rendered from `triton/*.pbtxt`, the same text as those of the shipped
models.
"""

import dataclasses
import json
from pathlib import Path
from string import Template

import onnx

from rehue_core.colorize import ModelSpec
from rehue_core.spec import read_model_contract
from rehue_training.errors import InputError
from rehue_training.learn.config import Config

TARGETS = ("cpu", "gpu")
TEMPLATES = Path(__file__).with_name("triton")
RUN_KEY = "rehue_run"  # metadata of an exported file
GENERATED = "<!-- Written by `rehue export`. Remove this line to keep your changes. -->"


def check_folder(folder: Path, spec: ModelSpec, run: str, *, force: bool) -> None:
    """Check that a run may write its model to a folder.

    Raises:
        InputError: the folder holds the model of another run, or configurations of another
            network, and `force` is false.
    """
    if force:
        return
    owner = read_run_name(folder)
    if owner not in (None, run):
        raise InputError(
            f"{folder} holds the model of the run {owner}: choose another `serves` or `name`, or "
            "replace it with --force"
        )
    for target in TARGETS:
        path = folder / "configs" / f"{target}.pbtxt"
        if path.is_file() and not _has_contract(path, spec):
            raise InputError(
                f"{path} describes a network of other sizes: correct it, or replace it with --force"
            )


def read_run_name(folder: Path) -> str | None:
    """Return the run that a model is from; without a record, the folder's name; None: no model."""
    path = folder / "1" / "model.onnx"
    if not path.is_file():
        return None
    metadata = onnx.load(path, load_external_data=False).metadata_props
    return next((entry.value for entry in metadata if entry.key == RUN_KEY), folder.name)


def _has_contract(path: Path, spec: ModelSpec) -> bool:
    try:
        contract = read_model_contract(path)
    except ValueError:
        return False
    batch, description = spec.max_batch, spec.description
    return dataclasses.replace(contract, max_batch=batch, description=description) == spec


def write_configurations(folder: Path, spec: ModelSpec, description: str) -> None:
    """Write both Triton configurations, except those that describe this network already."""
    for target in TARGETS:
        path = folder / "configs" / f"{target}.pbtxt"
        if not (path.is_file() and _has_contract(path, spec)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(render_configuration(target, spec, description))


def render_configuration(target: str, spec: ModelSpec, description: str) -> str:
    """Render the Triton configuration of a network for "cpu" or "gpu"."""
    input_bytes = spec.height * spec.width * spec.input_type.itemsize
    output_bytes = 2 * spec.ab_height * spec.ab_width * spec.output_type.itemsize
    return Template((TEMPLATES / f"{target}.pbtxt").read_text()).substitute(
        name=spec.name,
        description=description,
        side=spec.height,
        ab_side=spec.ab_height,
        input_kb=round(input_bytes / 1000),
        output_kb=round(output_bytes / 1000),
    )


CARD = """# {name}
{generated}

The run `{run}` of `rehue train`, exported after {step:,} of {steps:,} steps.

| | |
| --- | --- |
| Network | `{model}`, {start} |
| Input | `lightness`, UINT8 [N, 1, {side}, {side}]; L = count x 100 / 255 |
| Output | `ab`, FP16 [N, 2, {ab_side}, {ab_side}]; Lab units |
| File | `1/model.onnx`, {megabytes:.1f} MB, FP16 weights, computed in FP32 |
| Photographs | {photographs} |
| Validation loss | {loss} |
| Licence | not stated; it depends on the photographs and on the starting weights |

## Experiment

Everything that differs from the defaults:

```json
{experiment}
```

## Results

Not measured yet. `rehue evaluate --data PHOTOGRAPHS --models {name}` writes the table to
`results/evaluation/evaluation.md`; use photographs that the run has not seen.

The colours are guesses. They show what such things often look like, not what was there.
"""


def write_card(
    folder: Path,
    spec: ModelSpec,
    config: Config,
    *,
    step: int,
    history: list[dict[str, float]],
    photographs: dict[str, int] | None,
) -> None:
    """Write the model's card, unless there is one that was not written by this function.

    Args:
        step: steps done.
        history: the run's records; the last validation loss is taken from it.
        photographs: number of photographs for training and for validation, if known.
    """
    path = folder / "README.md"
    if path.is_file() and GENERATED not in path.read_text():
        return
    losses = [record["val_loss"] for record in history if "val_loss" in record]
    path.write_text(
        CARD.format(
            name=spec.name,
            generated=GENERATED,
            run=config.name,
            step=step,
            steps=config.steps,
            model=config.model,
            start=f"started from `{config.start}`" if config.start else "started from ImageNet",
            side=spec.height,
            ab_side=spec.ab_height,
            megabytes=(folder / "1" / "model.onnx").stat().st_size / 1e6,
            photographs=_format_counts(photographs),
            loss=f"{losses[-1]:.4f}" if losses else "not measured",
            experiment=json.dumps(
                config.model_dump(mode="json", exclude_defaults=True), indent=1, default=str
            ),
        )
    )


def _format_counts(photographs: dict[str, int] | None) -> str:
    if photographs is None:
        return "not recorded"
    return ", ".join(f"{count:,} for {use}" for use, count in photographs.items())
