"""A model of the repository, run as it is served but without the server.

The photograph is fitted into the network's input, and its colours enlarged to
full resolution, by the serving side's own functions. Sizes, types and scales
come from the model's Triton configuration.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import triton_to_np_dtype

from rehue_serve import colorize, lab
from rehue_serve.colorize import ModelSpec
from rehue_serve.lab import Float32, UInt8


class Colorizer:
    """`repository/name/1/model.onnx` under its `configs/cpu.pbtxt`."""

    def __init__(self, repository: Path, name: str) -> None:
        self.name = name
        self.spec = spec(repository / name / "configs" / "cpu.pbtxt")
        self.session = onnxruntime.InferenceSession(
            repository / name / "1" / "model.onnx", providers=["CPUExecutionProvider"]
        )

    def colours(self, counts: Any) -> Any:
        """ab (N2hw) of prepared lightness (N1HW), both in the model's own counts."""
        (ab,) = self.session.run(["ab"], {"lightness": counts})
        return ab

    def picture(self, lightness: Float32, *, strength: float = 1.0) -> UInt8:
        """HWC uint8 sRGB of a photograph's lightness (HW float32, 0..100)."""
        counts, box = colorize.prepare(lightness, self.spec)
        ab = self.colours(counts[None])[0]
        return colorize.finish(lightness, ab, box, self.spec, strength)


class Gray:
    """The photograph left as it is: what every colorizer must beat."""

    name = "gray"

    def picture(self, lightness: Float32) -> UInt8:
        return lab.to_rgb(lightness, np.zeros((1, 1, 2), np.float32))


def spec(path: Path) -> ModelSpec:
    """The contract that a Triton configuration file states."""
    config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    (entry,), (result,) = config.input, config.output
    return ModelSpec(
        name=config.name,
        height=entry.dims[1],
        width=entry.dims[2],
        ab_height=result.dims[1],
        ab_width=result.dims[2],
        input_type=_dtype(entry.data_type),
        output_type=_dtype(result.data_type),
        lightness_scale=float(config.parameters["lightness_scale"].string_value),
        ab_scale=float(config.parameters["ab_scale"].string_value),
        max_batch=config.max_batch_size,
    )


def _dtype(number: int) -> np.dtype[Any]:
    name = model_config_pb2.DataType.Name(number).removeprefix("TYPE_")
    return np.dtype(triton_to_np_dtype(name))
