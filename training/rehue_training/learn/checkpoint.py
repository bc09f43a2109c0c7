"""A run's state in one file, replaced atomically by rename."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = list[NDArray[Any]]
Record = dict[str, float]


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to be resumed or exported."""

    step: int  # steps done
    weights: Arrays
    averaged: Arrays  # their moving average; these are exported
    optimizer: Arrays
    history: list[Record]  # what was logged, oldest first


def save(path: Path, state: Checkpoint) -> None:
    """Write beside `path`, then rename: a kill or a full disk leaves the old file intact."""
    arrays = {
        f"{part}/{index}": array
        for part in ("weights", "averaged", "optimizer")
        for index, array in enumerate(getattr(state, part))
    }
    text = json.dumps({"step": state.step, "history": state.history})
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        np.savez(file, meta=np.array(text), **arrays)
    new.replace(path)


def save_averaged(path: Path, state: Checkpoint) -> None:
    """Write only what an export needs, in FP16: an eighth of the size. No run resumes from it."""
    averaged = [array.astype(np.float16) for array in state.averaged]
    save(path, Checkpoint(state.step, [], averaged, [], state.history))


def load(path: Path) -> Checkpoint:
    """Read the state that `save` wrote."""
    with np.load(path) as file:
        meta = json.loads(str(file["meta"]))
        return Checkpoint(
            step=meta["step"],
            weights=_read_arrays(file, "weights"),
            averaged=_read_arrays(file, "averaged"),
            optimizer=_read_arrays(file, "optimizer"),
            history=meta["history"],
        )


def _read_arrays(file: Any, part: str) -> Arrays:
    count = sum(name.startswith(f"{part}/") for name in file.files)
    return [file[f"{part}/{index}"] for index in range(count)]
