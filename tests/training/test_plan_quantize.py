"""INT8 and FP8: what is quantized, how far the colours go, and what refuses it."""

from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, shape_inference
from paths import MODELS, PHOTOS
from plan_models import check_plan, copy_model, ensure_plan
from standin import H100, create_standin

from rehue_core import spec
from rehue_training.plan import cost, parity, precision, quantize
from rehue_training.plan.cuda import Gpu
from rehue_training.plan.identity import PlanRefused, Precision
from rehue_training.plan.options import PlanOptions
from rehue_training.plan.served_model import load_served_model
from rehue_training.plan.tensorrt_package import BuildFailed

NAMES = ["rehue", "seed"]
LARGEST = {"int8": 127, "fp8": 448}
TYPES = {"int8": np.int8, "fp8": ml_dtypes.float8_e4m3fn}
EVERY = sorted(PHOTOS.glob("*.jpg"))
CALIBRATION, OTHERS = tuple(EVERY[:8]), EVERY[12:14]
OPTIONS = PlanOptions(
    precision="int8", calibration=CALIBRATION, photographs=lambda: parity.load_photographs(OTHERS)
)
# One photograph to compare on, and few to calibrate on: for tests of messages.
QUICK = replace(
    OPTIONS, calibration=CALIBRATION[:5], photographs=lambda: parity.load_photographs(OTHERS[:1])
)


@pytest.fixture(scope="module", params=[("rehue", "int8"), ("seed", "int8"), ("rehue", "fp8")])
def quantized(request: pytest.FixtureRequest) -> tuple[str, str, bytes]:
    """A model's name, the precision, and the ONNX file that its plan would be built from."""
    name, kind = request.param
    return (
        name,
        kind,
        replace(OPTIONS, precision=kind).convert_onnx(load_served_model(MODELS / name)),
    )


def test_the_dense_convolutions_are_quantized_and_symmetric(
    quantized: tuple[str, str, bytes],
) -> None:
    name, kind, content = quantized
    proto = onnx.load_model_from_string(content)
    graph = shape_inference.infer_shapes(proto, strict_mode=True).graph
    makers = {node.output[0]: node for node in graph.node}
    tensors = {
        initializer.name: numpy_helper.to_array(initializer) for initializer in graph.initializer
    }
    types = {
        value_info.name: value_info.type.tensor_type.elem_type for value_info in graph.value_info
    }
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    # By name, so that the choice is not tested by itself.
    expected = 11 if name == "seed" else 8 + 2 * 4  # of the U-Net, of the coarse ones
    found = [node for node in convolutions if node.input[1] in makers]
    assert len(found) == expected
    assert convolutions[0] not in found
    assert convolutions[-1] not in found
    ends = ("depthwise", "stem", "colours")  # of either look
    assert not any(part in node.name for node in found for part in ends)
    for node in found:
        for index, given in enumerate(node.input[:2]):
            undo = makers[given]
            assert (undo.op_type, types[given]) == ("DequantizeLinear", TensorProto.FLOAT16)
            assert not np.any(tensors[undo.input[2]].astype(np.float32))
            # TensorRT refuses a scale of zero, to which FP16 rounds one that is too small.
            assert np.all(tensors[undo.input[1]] > 0)
            channels = tensors[undo.input[1]].size
            kernel = makers[node.input[1]].input[0]
            assert channels == (1 if index == 0 else tensors[kernel].shape[0])
            assert tensors[kernel].dtype == TYPES[kind]
            assert np.abs(tensors[kernel].astype(np.float32)).max() == LARGEST[kind]


def test_the_colours_hold(quantized: tuple[str, str, bytes]) -> None:
    name, _, content = quantized
    found = parity.measure_parity(
        parity.load_quantized_network(content),
        parity.load_onnx_network(MODELS / name / "1" / "model.onnx"),
        parity.load_photographs(OTHERS),
        spec.read_model_contract(MODELS / name / "configs" / "gpu.pbtxt"),
        batch=2,
    )
    assert found.list_excesses(parity.QUANTIZED_TOLERANCE) == []
    assert found.ciede2000 > 0.01  # it is quantized indeed


def test_int8_moves_fewer_bytes(quantized: tuple[str, str, bytes]) -> None:
    name, _, content = quantized
    whole = (MODELS / name / "1" / "model.onnx").read_bytes()
    before, after = (
        cost.estimate_cost(precision.convert_precision(whole, "fp16")),
        cost.estimate_cost(content),
    )
    assert after.operations == before.operations
    assert after.traffic < before.traffic
    assert after.weights < before.weights


def test_a_plan_says_what_it_was_calibrated_on(tmp_path: Path) -> None:
    model, engine = copy_model(tmp_path / "repository"), create_standin()
    built = ensure_plan(model, engine, QUICK)
    assert " calibrated on 5 photographs (" in built.record.identity.precision
    assert engine.module.builds[0][1].flags == {"TF32"}  # the rest is in the graph
    with pytest.raises(PlanRefused, match=r"the precision was int8 .* 5 .*, here it is int8 .* 2"):
        check_plan(model, engine, replace(QUICK, calibration=CALIBRATION[:2]))


def test_colours_that_quantization_loses_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The depthwise convolutions, which are left alone for this very reason."""
    monkeypatch.setattr(quantize, "_is_dense", lambda node: True)
    model = copy_model(tmp_path / "repository")
    with pytest.raises(PlanRefused, match=r"ciede2000 is \d\.\d+, at most 0\.5 is allowed"):
        ensure_plan(model, create_standin(), QUICK)
    assert not (model / "1" / "model.plan").exists()


def test_int8_needs_photographs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="int8 needs photographs to calibrate on"):
        ensure_plan(copy_model(tmp_path / "r"), create_standin(), replace(OPTIONS, calibration=()))


@pytest.mark.parametrize(
    ("kind", "version", "gpu", "message"),
    [
        ("int8", "8.6.0", H100, r"TensorRT 8\.6\.0 does not support INT8 networks"),
        ("fp8", "8.6.0", H100, r"TensorRT 8\.6\.0 does not support FP8 networks"),
        ("fp8", "11.1.0.106", replace(H100, name="NVIDIA A10", compute_capability="8.6"),
         r"FP8 needs compute capability 8\.9 or newer; NVIDIA A10 has 8\.6"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_before_the_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: Precision,
    version: str,
    gpu: Gpu,
    message: str,
) -> None:
    monkeypatch.delattr(precision, "convert_precision")  # which calibrates for minutes
    model = copy_model(tmp_path / "repository")
    with pytest.raises(BuildFailed, match=message):
        ensure_plan(model, create_standin(gpu, version=version), replace(QUICK, precision=kind))
