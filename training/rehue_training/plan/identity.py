"""What a TensorRT plan was built from and for, stored beside it as JSON.

A plan is bound to the TensorRT that built it and to the GPU it was tuned on. Loading it elsewhere
fails late, or works and is slow. So each plan has its identity beside it, with the hash of the
plan's own bytes: a plan whose identity is not found there is refused. Nothing here needs TensorRT,
a GPU or TensorFlow.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args

PLAN_FILE = "model.plan"
RECORDS_FILE = "model.plan.json"

# Number formats of a plan's arithmetic, as `rehue plan --precision` names them.
Precision = Literal["fp16", "fp32", "int8", "fp8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
QUANTIZED: tuple[Precision, ...] = ("int8", "fp8")
DEFAULT_PRECISION: Precision = "fp16"

# TensorRT's HardwareCompatibilityLevel, by this project's names for them.
THIS_GPU, SAME_CAPABILITY, AMPERE_PLUS = "none", "same-compute-capability", "ampere-plus"
COMPATIBILITY = (THIS_GPU, SAME_CAPABILITY, AMPERE_PLUS)
AMPERE = (8, 0)
# Parts of the identity in which a plan of each level may differ from the GPU it runs on.
PORTABLE_PARTS = {
    THIS_GPU: (),
    SAME_CAPABILITY: ("gpu",),
    AMPERE_PLUS: ("gpu", "compute_capability"),
}

# Parts of the identity that kernels' times depend on, and so the choice of kernels.
TIMING_PARTS = ("tensorrt", "gpu", "compute_capability", "driver", "compatibility", "level")


@dataclass(frozen=True)
class Identity:
    """All that a plan depends on: a plan of the wanted identity is used as it is."""

    onnx: str  # SHA-256 of the ONNX file in the model repository
    precision: str  # what the ONNX was rewritten to before the build
    profiles: str  # the input's name and shapes, "min/opt/max" of each profile
    tensorrt: str  # version of the library libnvinfer
    gpu: str
    compute_capability: str
    driver: str
    compatibility: str  # one of COMPATIBILITY
    level: str  # of the builder's optimisation: "0" to "5", or "TensorRT's own"

    def describe_differences(self, here: Self) -> list[str]:
        """Returns a sentence for each part that differs from the identity wanted here."""
        return [
            f"{LABELS[name]} was {getattr(self, name)}, here it is {getattr(here, name)}"
            for name in (field.name for field in fields(self))
            if getattr(self, name) != getattr(here, name) and not self._tolerates(name, here)
        ]

    def _tolerates(self, name: str, here: Self) -> bool:
        """Whether the plan's compatibility level allows another GPU in this part."""
        if self.compatibility == AMPERE_PLUS and here._capability < AMPERE:
            return False
        return name in PORTABLE_PARTS.get(self.compatibility, ())

    @property
    def _capability(self) -> tuple[int, ...]:
        return tuple(map(int, self.compute_capability.split(".")))

    @property
    def key(self) -> str:
        """A short name for a folder of this identity; GPUs that may share a plan share it."""
        parts = {
            name: value
            for name, value in asdict(self).items()
            if name not in PORTABLE_PARTS.get(self.compatibility, ())
        }
        return _hash_parts(parts)

    @property
    def timing_key(self) -> str:
        """A short name for what kernels' times depend on: builds of one name share them."""
        return _hash_parts({name: getattr(self, name) for name in TIMING_PARTS})


def _hash_parts(parts: dict[str, str]) -> str:
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
class PlanRecord:
    """A plan's identity, and what was measured when it was built."""

    plan: str  # SHA-256 of its file
    identity: Identity
    built: str  # date and time, UTC, ISO 8601
    seconds: float  # that the build took
    parity: dict[str, float]  # distances to the ONNX, see `parity.Parity`

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(**(value | {"identity": Identity(**value["identity"])}))


class PlanRefused(ValueError):
    """A plan that must not be loaded; the message says why."""


def find_record(folder: Path, wanted: Identity) -> PlanRecord:
    """Finds the record of the plan in a model's version folder.

    Raises:
        PlanRefused: there is no plan, it is unknown or broken, or it differs from the one that is
            wanted here; the message says in what.
    """
    plan = folder / PLAN_FILE
    if not plan.is_file():
        raise PlanRefused(f"{plan} does not exist")
    name = hash_file(plan)
    known = [record for record in read_records(folder) if record.plan == name]
    if not known:
        raise PlanRefused(
            f"{plan} has no identity in {RECORDS_FILE}: it is not the file that was built, "
            "or another version of Rehue built it"
        )
    for record in known:
        if not record.identity.describe_differences(wanted):
            return record
    different = known[-1].identity.describe_differences(wanted)
    raise PlanRefused(f"{plan} does not fit: {'; '.join(different)}")


def read_records(folder: Path) -> list[PlanRecord]:
    """Reads the records beside a plan; an empty list if the file is missing or broken."""
    try:
        entries = json.loads((folder / RECORDS_FILE).read_text())["plans"]
        return [PlanRecord.from_json(entry) for entry in entries]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []


def store_plan(folder: Path, plan: bytes, record: PlanRecord) -> None:
    """Replaces the plan in `folder` with another.

    The plan on disk has its record at every moment: first the records of both are
    written, then the plan is renamed into place, then the old record goes.

    Raises:
        OSError: such as a full disk; the old plan is as it was.
    """
    write_atomically(folder / RECORDS_FILE, _encode_records([*read_records(folder), record]))
    write_atomically(folder / PLAN_FILE, plan)
    write_atomically(folder / RECORDS_FILE, _encode_records([record]))


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a new file and renames it into place, so that nobody reads half of it."""
    fresh = path.with_name(f"{path.name}.new")
    try:
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _encode_records(records: list[PlanRecord]) -> bytes:
    return json.dumps({"plans": [asdict(record) for record in records]}, indent=1).encode()


def hash_file(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
