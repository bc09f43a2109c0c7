"""What NVIDIA's own parser and builder make of the graphs, where there is no GPU.

TensorRT for RTX has the parser, the strong typing and the Python API of TensorRT 10 and 11; its
wheels carry the libraries, and its builder needs no GPU. Loading a plan does, so what a plan
answers is not tried here.
"""

from pathlib import Path

import onnx
import pytest
from standin import HostCuda

from rehue_training.plan.identity import PRECISIONS, Precision
from rehue_training.plan.options import PlanOptions
from rehue_training.plan.served_model import ONNX_FILE, load_served_model
from rehue_training.plan.tensorrt import TensorRT
from rehue_training.plan.tensorrt_package import BuildFailed

rtx = pytest.importorskip("tensorrt_rtx_bindings", reason="its wheels are for Linux")

ROOT = Path(__file__).parents[2]
PHOTOS = tuple(sorted((ROOT / "tests" / "photos").glob("*.jpg"))[:8])


@pytest.fixture(scope="module")
def builder() -> TensorRT:
    # It has the API of TensorRT 10, whatever it calls itself.
    return TensorRT(rtx, "10", HostCuda())  # type: ignore[arg-type]


def create_options(precision: Precision) -> PlanOptions:
    return PlanOptions(precision, calibration=PHOTOS if precision in ("int8", "fp8") else ())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["rehue", "seed"])
def test_every_graph_becomes_a_plan(builder: TensorRT, name: str, precision: Precision) -> None:
    model = ROOT / "model_repository" / name
    built = builder.build_plan(
        create_options(precision).convert_onnx(load_served_model(model)),
        load_served_model(model).profiles,
        precision=precision,
    )
    # Its weights at least; those of dense convolutions are a byte each where quantized.
    weights = (model / "1" / ONNX_FILE).stat().st_size
    assert len(built.plan) > weights * {"fp32": 2, "fp16": 1}.get(precision, 0.5)


def test_graph_is_typed_as_it_is_served(builder: TensorRT) -> None:
    network = rtx.Builder(builder._logger).create_network(builder._get_network_flags())
    builder._parse_onnx(
        network, PlanOptions().convert_onnx(load_served_model(ROOT / "model_repository" / "rehue"))
    )
    (entry, result) = network.get_input(0), network.get_output(0)
    assert (entry.dtype, result.dtype) == (rtx.DataType.UINT8, rtx.DataType.HALF)
    convolutions = [
        layer
        for layer in map(network.get_layer, range(network.num_layers))
        if layer.type == rtx.LayerType.CONVOLUTION
    ]
    assert {layer.get_output(0).dtype for layer in convolutions} == {rtx.DataType.HALF}


def test_refusal_has_the_parsers_reason(builder: TensorRT) -> None:
    model = ROOT / "model_repository" / "seed"
    graph = onnx.load_from_string(PlanOptions().convert_onnx(load_served_model(model)))
    graph.graph.node[-1].op_type = "Rehue"
    with pytest.raises(BuildFailed, match=r"does not take the ONNX file: .*Rehue"):
        builder.build_plan(
            graph.SerializeToString(), load_served_model(model).profiles, precision="fp16"
        )
