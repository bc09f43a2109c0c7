"""Copies of the committed models, fast to build plans from."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from paths import MODELS, PHOTOS
from tritonclient import grpc

from rehue_core.lab import UInt8
from rehue_training.plan import parity, plans
from rehue_training.plan.options import PlanOptions
from rehue_training.plan.parity import Parity
from rehue_training.plan.plans import PlanOutcome
from rehue_training.plan.served_model import load_served_model
from rehue_training.plan.tensorrt import TensorRT

CPU_BACKEND = {  # text of a GPU configuration, and its replacement
    'backend: "tensorrt"\nplatform: "tensorrt_plan"': 'backend: "onnxruntime"',
    'kind: KIND_GPU count: 2 profile: [ "0", "1" ]': "kind: KIND_CPU count: 2",
}

FAST_OPTIONS = PlanOptions(photographs=lambda: [load_face()])


def load_face() -> UInt8:
    """Return a part of a photograph: CIEDE2000 of all of it would dominate these tests."""
    (photograph,) = parity.load_photographs([PHOTOS / "mpl_grace_hopper.jpg"])
    return np.ascontiguousarray(photograph[40:168, 120:248])


def copy_model(repository: Path, name: str = "rehue") -> Path:
    """Copy a committed model, with a maximum batch of 2, and return its folder."""
    folder = repository / name
    shutil.copytree(MODELS / name / "configs", folder / "configs")
    (folder / "1").mkdir()
    shutil.copy(MODELS / name / "1" / "model.onnx", folder / "1")
    config = folder / "configs" / "gpu.pbtxt"
    text = config.read_text().replace("max_batch_size: 32", "max_batch_size: 2")
    config.write_text(text.replace("\n    batch_size: 32", "\n    batch_size: 2"))
    return folder


def ensure_plan(folder: Path, engine: TensorRT, options: PlanOptions) -> PlanOutcome:
    return plans.ensure_plan(load_served_model(folder), engine, options)


def check_plan(folder: Path, engine: TensorRT, options: PlanOptions) -> PlanOutcome:
    return plans.check_plan(load_served_model(folder), engine, options)


def compare_plan(folder: Path, engine: TensorRT, plan: bytes, options: PlanOptions) -> Parity:
    return plans.compare_plan(load_served_model(folder), engine, plan, options)


def scale_output(model: bytes, factor: float) -> bytes:
    """Return the ONNX model with its output scaled."""
    proto = onnx.load_model_from_string(model)
    for weight in proto.graph.initializer:
        if weight.name.startswith("ab_unit"):
            value = numpy_helper.to_array(weight) * np.float32(factor)
            weight.CopyFrom(numpy_helper.from_array(np.asarray(value, np.float32), weight.name))
    return bytes(proto.SerializeToString())


def replace_backend(text: str) -> str:
    """Return a GPU configuration with the CPU's backend, which a test's Triton can run."""
    for gpu, cpu in CPU_BACKEND.items():
        assert text.count(gpu) == 1
        text = text.replace(gpu, cpu)
    return text


def infer(url: str, name: str, counts: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the outputs of one call to a Triton."""
    with grpc.InferenceServerClient(url) as client:
        tensor = grpc.InferInput("lightness", counts.shape, "UINT8")
        tensor.set_data_from_numpy(counts)
        answer = client.infer(name, [tensor])
        return [answer.as_numpy("ab")]


def scale_model(path: Path, factor: float) -> None:
    """Replace a network by one with scaled chroma."""
    path.write_bytes(scale_output(path.read_bytes(), factor))
