"""From a model's ONNX file to the TensorRT plan that Triton serves on this GPU.

A plan whose identity is the one wanted here is left alone. Otherwise one builder at
a time builds, compares the colours with the ONNX file's, and renames the plan into
place; whatever goes wrong before that leaves the old plan as it was.
"""

import fcntl
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from rehue_core import spec
from rehue_core.colorize import ModelSpec
from rehue_core.lab import UInt8
from rehue_training.plan import identity, parity, precision
from rehue_training.plan.identity import PLAN, THIS_GPU, Identity, PlanRefused, Record
from rehue_training.plan.parity import TOLERANCE, Network, Parity
from rehue_training.plan.precision import Precision
from rehue_training.plan.tensorrt import Engine, Profile, TensorRT

ONNX = "model.onnx"
CONFIG = "configs/gpu.pbtxt"
TIMING_CACHE = "model.plan.timing"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How plans are built."""

    precision: Precision = "fp16"
    compatibility: str = THIS_GPU
    level: int | None = None  # of the builder's optimisation, 0 to 5; None: TensorRT's own
    cache: Path | None = None  # a volume that several nodes share
    photographs: Callable[[], Sequence[UInt8]] = parity.photographs  # to compare on
    calibration: tuple[Path, ...] = ()  # photographs that int8 and fp8 are scaled to

    @property
    def tolerance(self) -> Parity:
        return parity.QUANTIZED if self.precision in precision.QUANTIZED else TOLERANCE

    @property
    def named(self) -> str:
        """The precision, with what it depends on.

        Raises:
            ValueError: int8 or fp8 without photographs to calibrate on.
            OSError: one of them cannot be read.
        """
        name = f"{self.precision} as of {precision.code()}"
        if self.precision not in precision.QUANTIZED:
            return name
        if not self.calibration:
            raise ValueError(
                f"{self.precision} needs photographs to calibrate on (--calibration PHOTO ...)"
            )
        digests = "".join(sorted(map(identity.digest, self.calibration)))
        given = sha256(digests.encode()).hexdigest()[:16]
        return f"{name} calibrated on {len(self.calibration)} photographs ({given})"

    def onnx(self, model: Path) -> bytes:
        """The ONNX file that a model's plan is built from."""
        return self.rewritten(model, (model / "1" / ONNX).read_bytes())

    def rewritten(self, model: Path, content: bytes) -> bytes:
        """A model's ONNX file at the precision."""
        if self.precision not in precision.QUANTIZED:
            return precision.at(content, self.precision)
        contract = spec.read_model_contract(model / CONFIG)
        counts = parity.prepared(parity.photographs(self.calibration), contract)
        return precision.at(content, self.precision, counts)


@dataclass(frozen=True)
class Outcome:
    """A model whose plan may be loaded now."""

    record: Record
    refused: str | None  # why the plan that lay there was not taken; None: it was
    built: bool  # False: it lay there, or in the cache


def models(repository: Path, names: Sequence[str] = ()) -> list[Path]:
    """The folders of the models that have a GPU configuration, or those named.

    Raises:
        ValueError: there is none, or not one of that name.
    """
    found = {path.parents[1].name: path.parents[1] for path in repository.glob(f"*/{CONFIG}")}
    missing = [name for name in names if name not in found]
    if missing or not found:
        raise ValueError(f"no {' or '.join(missing) or 'model'} with {CONFIG} in {repository}")
    return [found[name] for name in names or sorted(found)]


def wanted(model: Path, tensorrt: TensorRT, options: Options) -> Identity:
    """The identity that the plan of a model must have to be served here."""
    gpu = tensorrt.gpu
    return Identity(
        onnx=identity.digest(model / "1" / ONNX),
        precision=options.named,
        profiles="; ".join(map(str, profiles(model))),
        tensorrt=tensorrt.version,
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        driver=gpu.driver,
        compatibility=options.compatibility,
        level="TensorRT's own" if options.level is None else str(options.level),
    )


def profiles(model: Path) -> list[Profile]:
    """Return the optimisation profiles of a model's GPU configuration, for all its batches.

    A single one is tuned for the largest batch. Of several the first is tuned for one photograph,
    the last for the largest batch, and those between are spaced evenly by ratio. Each covers only
    the batches that Triton would run with it, those whose size is nearest to the tuned one (of two
    as near, the first), so that no CUDA graph is captured that never runs.

    Raises:
        ValueError: the configuration is not one of ours.
    """
    config = _config(model / CONFIG)
    (entry,), (group,) = config.input, config.instance_group
    tuned = _tuned_batches(len(group.profile), config.max_batch_size)
    last = [(size + following) // 2 for size, following in itertools.pairwise(tuned)]
    first = [1, *(size + 1 for size in last)]
    return [
        Profile(entry.name, tuple(entry.dims), (min(least, size), size, greatest))
        for least, size, greatest in zip(first, tuned, [*last, config.max_batch_size], strict=True)
    ]


def _tuned_batches(count: int, largest: int) -> list[int]:
    if count < 2:
        return [largest]
    return [round(largest ** (step / (count - 1))) for step in range(count)]


def _config(path: Path) -> Any:
    try:
        return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(f"{path} is no model configuration: {error}") from None


def check(model: Path, tensorrt: TensorRT, options: Options) -> Outcome:
    """The plan of a model, which may be loaded here.

    Raises:
        PlanRefused: it may not be; with what differs.
    """
    here = wanted(model, tensorrt, options)
    return Outcome(_fitting(model / "1", here, options), None, False)


def ensure(model: Path, tensorrt: TensorRT, options: Options) -> Outcome:
    """The plan of a model, built if the one that lies there may not be loaded here.

    Raises:
        PlanRefused: the plan that was built, or that another GPU's node built for this one too,
            is too far from the ONNX file; or that file changed meanwhile.
        BuildFailed: TensorRT could not build it.
        OSError: such as a full disk. In each case the old plan is as it was.
    """
    here, version = wanted(model, tensorrt, options), model / "1"
    refused = _refusal(version, here, options)
    if refused is None:
        return Outcome(identity.check(version, here), None, False)
    tensorrt.accept(options.precision)
    # In a shared cache every identity has a folder of its own: nodes with unlike GPUs
    # neither wait for each other nor replace each other's plans.
    shelf = version if options.cache is None else options.cache / model.name / here.key
    shelf.mkdir(parents=True, exist_ok=True)
    with locked(shelf / PLAN):
        built = _refusal(shelf, here, options) is not None
        if built:
            _build(shelf, model, tensorrt, here, options)
        plan, record = (shelf / PLAN).read_bytes(), identity.check(shelf, here)
    if record.identity.gpu != here.gpu:  # compared on that one
        compare(model, tensorrt, plan, options)
    if shelf != version:
        with locked(version / PLAN):
            identity.put(version, plan, record)
    return Outcome(record, refused, built)


def _fitting(folder: Path, here: Identity, options: Options) -> Record:
    """The record of the plan in a folder, which has this identity and colours near enough.

    Raises:
        PlanRefused: it has not.
    """
    record = identity.check(folder, here)
    if beyond := Parity(**record.parity).exceeds(options.tolerance):
        raise PlanRefused(f"{folder / PLAN} is no longer near enough: {'; '.join(beyond)}")
    return record


def _refusal(folder: Path, here: Identity, options: Options) -> str | None:
    """Why the plan in a folder may not be loaded; None: it may."""
    try:
        _fitting(folder, here, options)
    except PlanRefused as error:
        return str(error)
    return None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits until no other process makes this file; the kernel frees a killed one's lock."""
    with path.with_name(f"{path.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for the process that makes %s", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(folder: Path, model: Path, tensorrt: TensorRT, here: Identity, options: Options) -> None:
    log.info("%s: building the plan, which takes minutes", model.name)
    content = (model / "1" / ONNX).read_bytes()
    if sha256(content).hexdigest() != here.onnx:  # while another builder was waited for
        raise PlanRefused(f"the ONNX file of {model.name} was replaced meanwhile: start again")
    # Not by ONNX file: new weights of the same layers need not be timed again.
    timing = (options.cache or folder) / f"{TIMING_CACHE}-{here.timings}"
    began = time.monotonic()
    built = tensorrt.build(
        options.rewritten(model, content),
        profiles(model),
        precision=options.precision,
        compatibility=options.compatibility,
        level=options.level,
        timing_cache=timing.read_bytes() if timing.is_file() else b"",
    )
    seconds = round(time.monotonic() - began, 1)
    # Before the comparison: a plan that is refused need not be timed again.
    with locked(timing):
        identity.write(timing, built.timing_cache)
    found = compare(model, tensorrt, built.plan, options)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    name = sha256(built.plan).hexdigest()
    identity.put(folder, built.plan, Record(name, here, date, seconds, asdict(found)))


def compare(model: Path, tensorrt: TensorRT, plan: bytes, options: Options) -> Parity:
    """How far a plan is from its ONNX file, by each profile at each end of its batches.

    Raises:
        PlanRefused: further than is tolerated.
    """
    contract = spec.read_model_contract(model / CONFIG)
    reference = parity.onnx_network(model / "1" / ONNX)
    photographs = options.photographs()
    expected = profiles(model)
    with tensorrt.load(plan) as engine:
        _refuse_others(engine, contract, len(expected))
        found = [
            parity.measure(_network(engine, number), reference, photographs, contract, batch=batch)
            for number, profile in enumerate(expected)
            for batch in sorted({profile.batches[0], profile.batches[2]})
        ]
    worst = Parity(*(max(column) for column in zip(*map(astuple, found), strict=True)))
    beyond = worst.exceeds(options.tolerance)
    if beyond:
        raise PlanRefused(f"the plan built from {model.name} is refused: {'; '.join(beyond)}")
    return worst


def _refuse_others(engine: Engine, contract: ModelSpec, count: int) -> None:
    """Refuses a plan that Triton would not take under the model's configuration."""
    wanted = {spec.INPUT: contract.input_type, spec.OUTPUT: contract.output_type}
    found = {name: engine.types.get(name) for name in wanted}
    different = [
        f"{name} is {found[name]}, its configuration says {wanted[name]}"
        for name in wanted
        if found[name] != wanted[name]
    ]
    if engine.profiles != count:
        different.append(f"it has {engine.profiles} optimisation profiles instead of {count}")
    if different:
        raise PlanRefused(f"the plan built of {contract.name} is refused: {'; '.join(different)}")


def _network(engine: Engine, profile: int) -> Network:
    (entry,), (result,) = engine.inputs, engine.outputs
    return lambda counts: engine.run({entry: counts}, profile=profile)[result]
