"""A model of the repository, run as it is served but without the server.

The photograph is fitted into the network's input, and its colours enlarged to
full resolution, by the serving side's own functions. Sizes, types and scales
come from the model's Triton configuration.
"""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from rehue_core import colorize, lab, spec
from rehue_core.lab import Float32, UInt8


class Colorizer:
    """`repository/name/1/model.onnx` under its `configs/cpu.pbtxt`."""

    def __init__(self, repository: Path, name: str) -> None:
        self.name = name
        self.spec = spec.read_model_contract(repository / name / "configs" / "cpu.pbtxt")
        self.session = onnxruntime.InferenceSession(
            repository / name / "1" / "model.onnx", providers=["CPUExecutionProvider"]
        )

    def with_network(self, proto: onnx.ModelProto, side: int) -> "Colorizer":
        """The same from another file, of another size of input (square, ab at half of it)."""
        other = copy.copy(self)
        other.session = onnxruntime.InferenceSession(
            proto.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        other.spec = dataclasses.replace(
            self.spec, height=side, width=side, ab_height=side // 2, ab_width=side // 2
        )
        return other

    def predict_ab(self, counts: Any) -> Any:
        """ab (N2hw) of prepared lightness (N1HW), both in the model's own counts."""
        (ab,) = self.session.run([spec.OUTPUT], {spec.INPUT: counts})
        return ab

    def colorize(self, lightness: Float32, *, strength: float = 1.0) -> UInt8:
        """HWC uint8 sRGB of a photograph's lightness (HW float32, 0..100)."""
        counts, box = colorize.prepare_input(lightness, self.spec)
        ab = self.predict_ab(counts[None])[0]
        return colorize.compose_rgb(lightness, ab, box, self.spec, strength)


class GrayBaseline:
    """The photograph left as it is: what every colorizer must beat."""

    name = "gray"

    def colorize(self, lightness: Float32) -> UInt8:
        return lab.convert_to_rgb(lightness, np.zeros((1, 1, 2), np.float32))
