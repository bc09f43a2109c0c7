"""The stand-in for TensorRT in `gpu-check`, on the CPU: the ONNX file's own colours."""

import numpy as np
import onnx
import onnxruntime
import pytest
from paths import MODELS, PHOTOS

pytest.importorskip("torch", reason="PyTorch is for machines with a GPU and without TensorRT")

import torch

from rehue_core import spec
from rehue_training.plan import parity, precision
from rehue_training.plan.torch_network import TorchNetwork


@pytest.mark.parametrize("name", ["rehue", "seed"])
def test_pytorch_has_the_onnx_files_colours(name: str) -> None:
    path = MODELS / name / "1" / "model.onnx"
    side = spec.read_model_contract(MODELS / name / "configs" / "gpu.pbtxt").height
    counts = np.random.default_rng(0).integers(0, 256, (2, 1, side, side), np.uint8)
    (expected,) = onnxruntime.InferenceSession(path).run(["ab"], {"lightness": counts})
    found = TorchNetwork(path.read_bytes(), "cpu").run({"lightness": counts})["ab"]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.astype(float), expected.astype(float), atol=0.1)


@pytest.mark.parametrize("name", ["rehue", "seed"])
def test_fp16_arithmetic_is_within_the_tolerance(name: str) -> None:
    """Every tensor between the convolutions rounded to FP16, as on a GPU."""
    path = MODELS / name / "1" / "model.onnx"
    network = TorchNetwork(precision.convert_precision(path.read_bytes(), "fp16"), "cpu")
    found = parity.measure_parity(
        lambda counts: network.run({"lightness": counts})["ab"],
        parity.load_onnx_network(path),
        parity.load_photographs([PHOTOS / "mpl_grace_hopper.jpg", PHOTOS / "sklearn_china.jpg"]),
        spec.read_model_contract(MODELS / name / "configs" / "gpu.pbtxt"),
        batch=2,
    )
    assert found.ab_largest > 0
    assert found.list_excesses(parity.TOLERANCE) == []


@pytest.mark.parametrize("name", ["rehue", "seed"])
def test_nothing_is_read_back_from_the_device(name: str) -> None:
    """Which would end the capture of a CUDA graph; tensors without contents cannot be read."""
    network = TorchNetwork(
        precision.convert_precision((MODELS / name / "1" / "model.onnx").read_bytes(), "fp16"),
        "meta",
    )
    config = spec.read_model_contract(MODELS / name / "configs" / "gpu.pbtxt")
    counts = torch.empty((2, 1, config.height, config.width), dtype=torch.uint8, device="meta")
    with torch.inference_mode():
        (made,) = network(counts)
    assert made.shape == (2, 2, config.ab_height, config.ab_width)


def test_an_operator_that_is_not_known_is_named() -> None:
    proto = onnx.load(MODELS / "seed" / "1" / "model.onnx")
    proto.graph.node[-1].op_type = "Erf"
    with pytest.raises(ValueError, match="unknown operators: Erf"):
        TorchNetwork(proto.SerializeToString(), "cpu")
