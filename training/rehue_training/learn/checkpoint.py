"""The whole state of a run in one file, replaced by rename: all of it or none."""

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
    """What a run needs to go on, or to be exported."""

    step: int  # steps done
    weights: Arrays
    averaged: Arrays  # their moving average: what is exported
    optimizer: Arrays
    history: list[Record]  # what was logged, oldest first


def save(path: Path, state: Checkpoint) -> None:
    """Writes beside `path`, then renames: a kill or a full disk keeps the old one."""
    arrays = {
        f"{part}/{index}": array
        for part in ("weights", "averaged", "optimizer")
        for index, array in enumerate(getattr(state, part))
    }
    text = json.dumps({"step": state.step, "history": state.history})
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        np.savez(file, meta=np.array(text), **arrays)
    fresh.replace(path)


def load(path: Path) -> Checkpoint:
    """The state that `save` wrote."""
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
