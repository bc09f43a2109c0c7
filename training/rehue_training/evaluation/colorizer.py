"""Runs a model of the repository as the server does, without the server.

The serving side's own functions (`rehue_core.colorize`) fit the photograph into the
network's input and enlarge its colours to full resolution. Sizes, types and scales
come from the model's Triton configuration.
"""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from rehue_core import colorize, spec
from rehue_core.lab import Float32, UInt8
from rehue_core.rgb import convert_to_rgb
from rehue_training.errors import InputError

FILES = "*/1/model.onnx"


class Colorizer:
    """Colorizes with `repository/<name>/1/model.onnx`, as `configs/cpu.pbtxt` describes it.

    Raises:
        InputError: there is no such model, or it has no configuration.
    """

    def __init__(self, repository: Path, name: str) -> None:
        folder = repository / name
        if not (folder / "1" / "model.onnx").is_file():
            models = ", ".join(sorted(path.parents[1].name for path in repository.glob(FILES)))
            raise InputError(f"there is no model {name} in {repository}; there are: {models}")
        if not (folder / "configs" / "cpu.pbtxt").is_file():
            raise InputError(f"{folder} has no configs/cpu.pbtxt: `rehue export` writes it")
        self.name = name
        self.spec = spec.read_model_contract(repository / name / "configs" / "cpu.pbtxt")
        self.session = onnxruntime.InferenceSession(
            repository / name / "1" / "model.onnx", providers=["CPUExecutionProvider"]
        )

    def with_network(self, proto: onnx.ModelProto, side: int) -> "Colorizer":
        """Return a copy with another network and input size (square, ab at half of it)."""
        other = copy.copy(self)
        other.session = onnxruntime.InferenceSession(
            proto.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        other.spec = dataclasses.replace(
            self.spec, height=side, width=side, ab_height=side // 2, ab_width=side // 2
        )
        return other

    def predict_ab(self, counts: Any) -> Any:
        """Return ab (N2hw) for prepared lightness (N1HW), both in the model's units."""
        (ab,) = self.session.run([spec.OUTPUT], {spec.INPUT: counts})
        return ab

    def colorize(self, lightness: Float32, *, strength: float = 1.0) -> UInt8:
        """Return HWC uint8 sRGB for a photograph's lightness (HW float32, 0..100)."""
        counts, box = colorize.prepare_input(lightness, self.spec)
        ab = self.predict_ab(counts[None])[0]
        return colorize.compose_rgb(lightness, ab, box, self.spec, strength)


class GrayBaseline:
    """Leaves the photograph gray: the baseline that every model must beat."""

    name = "gray"

    def colorize(self, lightness: Float32) -> UInt8:
        return convert_to_rgb(lightness, np.zeros((1, 1, 2), np.float32))
