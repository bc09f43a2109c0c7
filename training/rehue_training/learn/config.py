"""An experiment: a plain Python file whose `config` is checked before any work.

The shipped ones are in `training/configs/`. A value of the wrong type, out of range
or misspelt stops the command with its name and what is allowed.
"""

import runpy
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from rehue_training.errors import InputError
from rehue_training.learn.losses import ClassificationLoss, ColorLoss, MeanSquaredError
from rehue_training.network.curve import Curve
from rehue_training.network.ensemble import GuidedFilter, TextureGate

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
VALUE_ERROR = "Value error, "  # pydantic's prefix to the message of a validator


class Stage(BaseModel):
    """A number of steps on crops of one size."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    steps: Count
    size: Annotated[int, Field(ge=32, multiple_of=32)]
    batch: Count
    # Smallest and largest side of a crop, as a share of the photograph's short side.
    crop: tuple[Share, Share] = (1.0, 1.0)
    # Probability of the whole photograph instead of a crop, fitted as the server fits it.
    whole: Share = 0.0

    @model_validator(mode="after")
    def _check_crop(self) -> Self:
        if not 0 < self.crop[0] <= self.crop[1]:
            raise ValueError(f"crop: {self.crop} must be two shares above 0, the smaller one first")
        return self


class Exported(BaseModel):
    """What an experiment and an ensemble say of the model that they export."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    # Name of the exported model; empty: that of the experiment.
    serves: Annotated[str, Field(pattern=r"^[a-z0-9-]*$")] = ""
    side: Annotated[int, Field(ge=64, multiple_of=32)] = 256  # of the exported network's input
    # The curve that the exported network's chroma follows: `curve.Curve`.
    gain: Annotated[float, Field(gt=0, le=3)] = 1.0
    pale: Annotated[float, Field(gt=0, le=1)] = 1.0
    bend: Annotated[float, Field(gt=0, le=100)] = 15.0

    @property
    def curve(self) -> Curve:
        return Curve(self.gain, self.pale, self.bend)

    @property
    def served_name(self) -> str:
        """Name of the exported model in the repository."""
        return self.serves or self.name


class Config(Exported):
    """Everything that a run depends on, except the photographs."""

    model: Literal["seed", "rehue", "rehue-classes", "rehue-coarse", "rehue-large"]
    encoder: Literal["lite0", "lite1", "lite2"] = "lite0"  # of rehue-coarse
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    # 2: the output is the mean over the picture and the picture at half its size.
    looks: Annotated[int, Field(ge=1, le=2)] = 1
    # An exported model to start from; otherwise ImageNet's encoder and a new decoder.
    start: Path | None = None
    start_scope: str = ""  # of the network's names in that file, if it is an ensemble
    # Share of the start's weights in the exported ones. Weights that are close to each other often
    # do better averaged (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022).
    keep: Share = 0.0
    loss: Annotated[MeanSquaredError | ColorLoss | ClassificationLoss, Field(discriminator="kind")]
    adversary: Annotated[float, Field(ge=0)] = 0.0  # weight of the critic's term in the loss
    learning_rate: Annotated[float, Field(gt=0, lt=1)]
    encoder_rate: Share = 1.0  # share of the learning rate for pretrained layers
    frozen_blocks: Annotated[int, Field(ge=0, le=21)] = 0  # pretrained blocks that do not learn
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip: Annotated[float, Field(gt=0)] | None = None  # largest global norm of the gradients
    warmup: Annotated[int, Field(ge=0)] = 0
    # Share of the steps, at the end, over which the rate falls to zero along half a cosine.
    decay: Share = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0  # decay of the weights' moving average
    film: Share = 0.0  # probability of simulating old film
    scans: Share = 0.0  # probability of another scan of the photograph; of rehue-coarse
    short_side: Annotated[int, Field(ge=64)] = 200  # pixels that are cached of a photograph
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    classes: tuple[str, ...] = ()  # licence classes of a manifest; empty: all
    balance: Share = 0.0  # of sources: 0 as they are, 1 each equally often
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.03  # share of the photographs
    held_out: tuple[str, ...] = ()  # sources that are only used for validation
    validate_on: Count = 128
    log_every: Count = 20
    validate_every: Count = 200
    checkpoint_every: Count = 100
    seed: int = 1
    temperature: Annotated[float, Field(gt=0, le=2)] = 0.38  # of the annealed mean of classes

    def with_changes(self, **changes: object) -> Self:
        """Return a copy with some values changed; they are checked too.

        Raises:
            ValueError: the copy is another run and would keep a share of its start's weights only
                because this one does.
        """
        if self.keep and changes.get("name", self.name) != self.name and "keep" not in changes:
            raise ValueError(
                f"keep: {self.name} keeps {self.keep} of its start's weights in the exported ones; "
                f"say what {changes['name']} keeps (keep=0.0: nothing)"
            )
        return type(self)(**{**dict(self), **changes})

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    @model_validator(mode="after")
    def _check_warmup(self) -> Self:
        if self.warmup >= self.steps:
            raise ValueError(f"warmup: {self.warmup} must be below the run's {self.steps} steps")
        return self

    @model_validator(mode="after")
    def _check_loss(self) -> Self:
        if (self.model == "rehue-classes") != isinstance(self.loss, ClassificationLoss):
            raise ValueError(f"loss: {self.loss.kind!r} does not fit the model {self.model!r}")
        return self

    @model_validator(mode="after")
    def _check_looks(self) -> Self:
        sizes = [*(stage.size for stage in self.stages), self.side]
        if self.looks == 2 and (self.model != "rehue" or any(size % 64 for size in sizes)):
            raise ValueError(f"looks: 2 needs the model rehue and sizes that divide by 64: {sizes}")
        return self

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        if self.start is not None and not self.start.is_file():
            raise ValueError(f"start: there is no model at {self.start}")
        if self.keep and self.start is None:
            raise ValueError("keep: needs a `start` to keep a share of")
        return self


class EnsembleMember(BaseModel):
    """A trained network of an ensemble, and the sizes at which it looks at the photograph."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    experiment: Path  # its config
    sides: Annotated[tuple[Annotated[int, Field(ge=32, multiple_of=32)], ...], Field(min_length=1)]
    weight: Annotated[float, Field(gt=0)] = 1.0  # of each look
    # An exported file that holds the weights, and their scope in it; else its run's.
    weights: Path | None = None
    scope: str = ""  # in the ensemble's file, and in `weights`

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        for path in (self.experiment, self.weights):
            if path is not None and not path.is_file():
                raise ValueError(f"there is no file {path}")
        return self


class Ensemble(Exported):
    """The mean of several networks, served as one: `rehue export` makes it, nothing trains it."""

    members: Annotated[tuple[EnsembleMember, ...], Field(min_length=1)]
    edges: GuidedFilter = GuidedFilter()
    texture: TextureGate = TextureGate()

    @model_validator(mode="after")
    def _check_scopes(self) -> Self:
        if len({member.scope for member in self.members}) < len(self.members):
            raise ValueError("members: their scopes must differ, or so would not their weights")
        return self


def read_config(path: Path) -> Config:
    """Read the `config` of an experiment's file.

    Raises:
        InputError: there is no such file, it fails, sets no `config`, or a value is not allowed.
    """
    found = read_experiment(path)
    if isinstance(found, Ensemble):
        raise InputError(f"{path} is an ensemble, which cannot be trained: train its members")
    return found


def read_experiment(path: Path) -> Config | Ensemble:
    """Read the `config` of an experiment's or an ensemble's file.

    Raises:
        InputError: the file sets no `config`, or a value is not allowed.
    """
    if not path.is_file():
        raise InputError(f"there is no experiment at {path}")
    try:
        found = runpy.run_path(str(path)).get("config")
    except ValidationError as error:
        raise InputError(f"{path}: {_describe(error)}") from None
    except Exception as error:  # the file is the user's own code
        raise InputError(f"{path}: {type(error).__name__}: {error}") from error
    if not isinstance(found, Config | Ensemble):
        raise InputError(f"{path} must set `config` to a rehue_training.learn.config.Config")
    return found


def _describe(error: ValidationError) -> str:
    """Describe every value that is not allowed, in one line."""
    return "; ".join(map(_describe_value, error.errors()))


def _describe_value(problem: ErrorDetails) -> str:
    name = ".".join(map(str, problem["loc"]))
    message = problem["msg"].removeprefix(VALUE_ERROR)
    value = problem["input"]
    given = f" (it is {value!r})" if isinstance(value, int | float | str) else ""
    return f"{name}: {message}{given}" if name else message
