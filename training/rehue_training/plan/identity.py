"""What a TensorRT plan was built from and for, kept beside it as JSON.

A plan is bound to the TensorRT that built it and to the GPU it was tuned on; loading
it elsewhere fails late, or works and is slow. So each plan has its identity beside it,
with the hash of the plan's own bytes: whichever plan lies there, its identity is
found or it is refused. Nothing here needs TensorRT, a GPU or TensorFlow.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

PLAN = "model.plan"
RECORDS = "model.plan.json"

# TensorRT's HardwareCompatibilityLevel, by the names that this project uses.
THIS_GPU, SAME_CAPABILITY, AMPERE_PLUS = "none", "same-compute-capability", "ampere-plus"
COMPATIBILITY = (THIS_GPU, SAME_CAPABILITY, AMPERE_PLUS)
AMPERE = (8, 0)
# Parts of the identity that a plan of each level may not share with the GPU it runs on.
BORNE = {
    THIS_GPU: (),
    SAME_CAPABILITY: ("gpu",),
    AMPERE_PLUS: ("gpu", "compute_capability"),
}

# Parts of the identity that the times of kernels, and so their choice, depend on.
TIMED = ("tensorrt", "gpu", "compute_capability", "driver", "compatibility", "level")


@dataclass(frozen=True)
class Identity:
    """All that a plan depends on. Equal identities: the plan is used as it is."""

    onnx: str  # SHA-256 of the ONNX file in the model repository
    precision: str  # what the ONNX was rewritten to before the build
    profiles: str  # the input's name and shapes, "min/opt/max" of each profile
    tensorrt: str  # its version
    gpu: str
    compute_capability: str
    driver: str
    compatibility: str  # one of COMPATIBILITY
    level: str  # of the builder's optimisation: "0" to "5", or "TensorRT's own"

    def differences(self, here: Self) -> list[str]:
        """Where this plan's identity is not what is wanted here, each as a sentence."""
        return [
            f"{LABELS[name]} was {getattr(self, name)}, here it is {getattr(here, name)}"
            for name in (field.name for field in fields(self))
            if getattr(self, name) != getattr(here, name) and not self._allows(name, here)
        ]

    def _allows(self, name: str, here: Self) -> bool:
        """Whether the compatibility that this plan was built with bears the difference."""
        if self.compatibility == AMPERE_PLUS and here._number < AMPERE:
            return False
        return name in BORNE.get(self.compatibility, ())

    @property
    def _number(self) -> tuple[int, ...]:
        return tuple(map(int, self.compute_capability.split(".")))

    @property
    def key(self) -> str:
        """A short name for a folder; identities that may share a plan share it."""
        parts = {
            name: value
            for name, value in asdict(self).items()
            if name not in BORNE.get(self.compatibility, ())
        }
        return _short(parts)

    @property
    def timings(self) -> str:
        """A short name for what kernels' times depend on: builds of one name share them."""
        return _short({name: getattr(self, name) for name in TIMED})


def _short(parts: dict[str, str]) -> str:
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


LABELS = {
    "onnx": "the ONNX file's SHA-256",
    "precision": "the precision",
    "profiles": "the optimisation profiles",
    "tensorrt": "the TensorRT version",
    "gpu": "the GPU",
    "compute_capability": "the compute capability",
    "driver": "the driver",
    "compatibility": "the hardware compatibility level",
    "level": "the builder's optimisation level",
}


@dataclass(frozen=True)
class Record:
    """One plan's identity, and what was found when it was built."""

    plan: str  # SHA-256 of its file
    identity: Identity
    built: str  # date and time, UTC, ISO 8601
    seconds: float  # that the build took
    parity: dict[str, float]  # distances to the ONNX, see `parity.Parity`

    @classmethod
    def of(cls, value: dict[str, Any]) -> Self:
        return cls(**(value | {"identity": Identity(**value["identity"])}))


class PlanRefused(ValueError):
    """A plan that must not be loaded; the message says why."""


def check(folder: Path, wanted: Identity) -> Record:
    """The record of the plan in `folder`, a model's version folder.

    Raises:
        PlanRefused: there is none, it is unknown or broken, or it is not the one
            that is wanted here, with what differs.
    """
    plan = folder / PLAN
    if not plan.is_file():
        raise PlanRefused(f"{plan} does not exist")
    name = digest(plan)
    known = [record for record in records(folder) if record.plan == name]
    if not known:
        raise PlanRefused(
            f"{plan} has no identity in {RECORDS}: it is not the file that was built, "
            "or another version of Rehue built it"
        )
    for record in known:
        if not record.identity.differences(wanted):
            return record
    different = known[-1].identity.differences(wanted)
    raise PlanRefused(f"{plan} does not fit: {'; '.join(different)}")


def records(folder: Path) -> list[Record]:
    """The records beside a plan; none where the file is missing or broken."""
    try:
        return [Record.of(one) for one in json.loads((folder / RECORDS).read_text())["plans"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []


def put(folder: Path, plan: bytes, record: Record) -> None:
    """Replaces the plan in `folder` with another.

    The plan on disk has its record at every moment: first the records of both are
    written, then the plan is renamed into place, then the old record goes.

    Raises:
        OSError: such as a full disk; the old plan is as it was.
    """
    write(folder / RECORDS, _json([*records(folder), record]))
    write(folder / PLAN, plan)
    write(folder / RECORDS, _json([record]))


def write(path: Path, content: bytes) -> None:
    """Writes beside and renames into place, so that nobody reads half a file."""
    fresh = path.with_name(f"{path.name}.new")
    try:
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _json(records: list[Record]) -> bytes:
    return json.dumps({"plans": [asdict(record) for record in records]}, indent=1).encode()


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
