"""How plans are built: precision, compatibility, level, cache, photographs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from rehue_core.lab import UInt8
from rehue_training.plan import identity, parity, precision
from rehue_training.plan.identity import DEFAULT_PRECISION, QUANTIZED, THIS_GPU, Precision
from rehue_training.plan.parity import Parity
from rehue_training.plan.served_model import ServedModel


@dataclass(frozen=True)
class PlanOptions:
    """How plans are built."""

    precision: Precision = DEFAULT_PRECISION
    compatibility: str = THIS_GPU
    level: int | None = None  # of the builder's optimisation, 0 to 5; None: TensorRT's own
    cache: Path | None = None  # a volume that several nodes share
    photographs: Callable[[], Sequence[UInt8]] = parity.load_photographs  # to compare on
    calibration: tuple[Path, ...] = ()  # photographs that int8 and fp8 are scaled to

    @property
    def tolerance(self) -> Parity:
        if self.precision in QUANTIZED:
            return parity.QUANTIZED_TOLERANCE
        return parity.TOLERANCE

    def describe_precision(self) -> str:
        """Names the precision with all that it depends on, for a plan's identity.

        Raises:
            ValueError: int8 or fp8 without photographs to calibrate on.
            OSError: one of them cannot be read.
        """
        name = f"{self.precision} as of {precision.hash_converter_code()}"
        if self.precision not in QUANTIZED:
            return name
        if not self.calibration:
            raise ValueError(
                f"{self.precision} needs photographs to calibrate on (--calibration PHOTO ...)"
            )
        hashes = "".join(sorted(map(identity.hash_file, self.calibration)))
        short = sha256(hashes.encode()).hexdigest()[:16]
        return f"{name} calibrated on {len(self.calibration)} photographs ({short})"

    def convert_onnx(self, model: ServedModel, content: bytes | None = None) -> bytes:
        """Returns the model's ONNX file (or this content of it) at the precision."""
        content = model.onnx_path.read_bytes() if content is None else content
        if self.precision not in QUANTIZED:
            return precision.convert_precision(content, self.precision)
        photographs = parity.load_photographs(self.calibration)
        counts = parity.prepare_inputs(photographs, model.contract)
        return precision.convert_precision(content, self.precision, counts)
