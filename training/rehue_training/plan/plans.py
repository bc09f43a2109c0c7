"""Builds the TensorRT plan that Triton serves on this GPU from a model's ONNX file.

A plan with the identity that is wanted here is left alone. Otherwise one builder at a time builds,
compares the colours with the ONNX file's, and renames the plan into place. Whatever fails before
that leaves the old plan as it was.
"""

import fcntl
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from rehue_core import spec
from rehue_training.plan import identity, parity
from rehue_training.plan.engine import Engine
from rehue_training.plan.identity import PLAN_FILE, Identity, PlanRecord, PlanRefused
from rehue_training.plan.options import PlanOptions
from rehue_training.plan.parity import Network, Parity
from rehue_training.plan.served_model import ServedModel
from rehue_training.plan.tensorrt import TensorRT

TIMING_CACHE = "model.plan.timing"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlanOutcome:
    """What was done for a model whose plan may be loaded now."""

    record: PlanRecord
    refusal: str | None  # why the plan that was there could not be used; None: it could
    built: bool  # False: it was there, or in the cache


def derive_identity(model: ServedModel, tensorrt: TensorRT, options: PlanOptions) -> Identity:
    """Returns the identity that a model's plan must have to be served here."""
    gpu = tensorrt.gpu
    return Identity(
        onnx=identity.hash_file(model.onnx_path),
        precision=options.describe_precision(),
        profiles="; ".join(map(str, model.profiles)),
        tensorrt=tensorrt.version,
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        driver=gpu.driver,
        compatibility=options.compatibility,
        level="TensorRT's own" if options.level is None else str(options.level),
    )


def check_plan(model: ServedModel, tensorrt: TensorRT, options: PlanOptions) -> PlanOutcome:
    """Checks that the plan of a model may be loaded here.

    Raises:
        PlanRefused: it may not; the message says what differs.
    """
    wanted = derive_identity(model, tensorrt, options)
    return PlanOutcome(_find_fitting_record(model.version_folder, wanted, options), None, False)


def ensure_plan(model: ServedModel, tensorrt: TensorRT, options: PlanOptions) -> PlanOutcome:
    """Builds the plan of a model, unless the one that is there may be loaded here.

    Raises:
        PlanRefused: the plan that was built, or that another GPU's node built for this one too,
            is too far from the ONNX file; or that file changed meanwhile.
        BuildFailed: TensorRT could not build it.
        OSError: such as a full disk. In each case the old plan is as it was.
    """
    wanted, folder = derive_identity(model, tensorrt, options), model.version_folder
    refusal = _find_refusal(folder, wanted, options)
    if refusal is None:
        return PlanOutcome(identity.find_record(folder, wanted), None, False)
    tensorrt.refuse_unsupported(options.precision)
    # In a shared cache every identity has a folder of its own: nodes with different GPUs
    # neither wait for each other nor replace each other's plans.
    shelf = folder if options.cache is None else options.cache / model.name / wanted.key
    shelf.mkdir(parents=True, exist_ok=True)
    with lock_file(shelf / PLAN_FILE):
        built = _find_refusal(shelf, wanted, options) is not None
        if built:
            _build_plan(shelf, model, tensorrt, wanted, options)
        plan, record = (shelf / PLAN_FILE).read_bytes(), identity.find_record(shelf, wanted)
    if record.identity.gpu != wanted.gpu:  # compared on that GPU only
        compare_plan(model, tensorrt, plan, options)
    if shelf != folder:
        with lock_file(folder / PLAN_FILE):
            identity.store_plan(folder, plan, record)
    return PlanOutcome(record, refusal, built)


def _find_fitting_record(folder: Path, wanted: Identity, options: PlanOptions) -> PlanRecord:
    """Returns the record of the plan in a folder if its identity and its colours fit.

    Raises:
        PlanRefused: they do not.
    """
    record = identity.find_record(folder, wanted)
    if excesses := Parity(**record.parity).list_excesses(options.tolerance):
        raise PlanRefused(f"{folder / PLAN_FILE} is not accurate enough: {'; '.join(excesses)}")
    return record


def _find_refusal(folder: Path, wanted: Identity, options: PlanOptions) -> str | None:
    """Returns why the plan in a folder may not be loaded; None if it may."""
    try:
        _find_fitting_record(folder, wanted, options)
    except PlanRefused as error:
        return str(error)
    return None


@contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Waits until no other process makes this file; the kernel frees a killed process's lock."""
    with path.with_name(f"{path.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for the process that makes %s", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build_plan(
    folder: Path, model: ServedModel, tensorrt: TensorRT, wanted: Identity, options: PlanOptions
) -> None:
    log.info("%s: building the plan, which takes minutes", model.name)
    content = model.onnx_path.read_bytes()
    if sha256(content).hexdigest() != wanted.onnx:  # while another builder was waited for
        raise PlanRefused(
            f"the ONNX file of {model.name} was replaced during the build: start again"
        )
    # Not by ONNX file: new weights of the same layers need not be timed again.
    timing = (options.cache or folder) / f"{TIMING_CACHE}-{wanted.timing_key}"
    began = time.monotonic()
    built = tensorrt.build_plan(
        options.convert_onnx(model, content),
        model.profiles,
        precision=options.precision,
        compatibility=options.compatibility,
        level=options.level,
        timing_cache=timing.read_bytes() if timing.is_file() else b"",
    )
    seconds = round(time.monotonic() - began, 1)
    # Before the comparison: a plan that is refused need not be timed again.
    with lock_file(timing):
        identity.write_atomically(timing, built.timing_cache)
    distances = asdict(compare_plan(model, tensorrt, built.plan, options))
    date = datetime.now(UTC).isoformat(timespec="seconds")
    name = sha256(built.plan).hexdigest()
    identity.store_plan(folder, built.plan, PlanRecord(name, wanted, date, seconds, distances))


def compare_plan(
    model: ServedModel, tensorrt: TensorRT, plan: bytes, options: PlanOptions
) -> Parity:
    """Measures how far a plan is from its ONNX file, by each profile at both ends of its batches.

    Raises:
        PlanRefused: further than is tolerated.
    """
    reference = parity.load_onnx_network(model.onnx_path)
    photographs = options.photographs()
    with tensorrt.load_plan(plan) as engine:
        _refuse_other_tensors(engine, model)
        found = [
            parity.measure_parity(
                _open_profile(engine, number), reference, photographs, model.contract, batch=batch
            )
            for number, profile in enumerate(model.profiles)
            for batch in sorted({profile.batches[0], profile.batches[2]})
        ]
    worst = Parity(*(max(column) for column in zip(*map(astuple, found), strict=True)))
    if excesses := worst.list_excesses(options.tolerance):
        raise PlanRefused(f"the plan built from {model.name} is refused: {'; '.join(excesses)}")
    return worst


def _refuse_other_tensors(engine: Engine, model: ServedModel) -> None:
    """Refuses a plan that Triton would not load under the model's configuration."""
    contract, count = model.contract, len(model.profiles)
    wanted = {spec.INPUT: contract.input_type, spec.OUTPUT: contract.output_type}
    found = {name: engine.tensor_types.get(name) for name in wanted}
    different = [
        f"{name} is {found[name]}, its configuration says {wanted[name]}"
        for name in wanted
        if found[name] != wanted[name]
    ]
    if engine.profile_count != count:
        different.append(f"it has {engine.profile_count} optimisation profiles instead of {count}")
    if different:
        raise PlanRefused(f"the plan built from {model.name} is refused: {'; '.join(different)}")


def _open_profile(engine: Engine, profile: int) -> Network:
    (entry,), (result,) = engine.inputs, engine.outputs
    return lambda counts: engine.run({entry: counts}, profile=profile)[result]
