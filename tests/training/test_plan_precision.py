"""The ONNX that plans are built from: FP16 where it may be, the same colours, the same contract."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, shape_inference
from paths import MODELS, PHOTOS

from rehue_core import spec
from rehue_training.plan import cost, onnx_graph, parity, precision
from rehue_training.plan.identity import Precision
from rehue_training.plan.parity import Parity

NAMES = ["rehue", "seed"]
SOME = [PHOTOS / "mpl_grace_hopper.jpg", PHOTOS / "sklearn_china.jpg"]


def read_model(name: str) -> bytes:
    return (MODELS / name / "1" / "model.onnx").read_bytes()


def load_network(content: bytes) -> parity.Network:
    session = onnxruntime.InferenceSession(content)
    return lambda counts: session.run(["ab"], {"lightness": counts})[0]


@pytest.mark.parametrize("name", NAMES)
def test_every_convolution_is_fp16_and_the_ends_are_fp32(name: str) -> None:
    graph = shape_inference.infer_shapes(
        onnx.load_model_from_string(precision.convert_precision(read_model(name), "fp16")),
        strict_mode=True,
    ).graph
    types = {
        value_info.name: value_info.type.tensor_type.elem_type
        for value_info in [*graph.input, *graph.value_info]
    }
    types |= {initializer.name: initializer.data_type for initializer in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv":
            assert {types[found_name] for found_name in node.input} == {TensorProto.FLOAT16}
        if node.op_type in ("Tanh", "Mul"):
            assert {types[found_name] for found_name in node.input} == {TensorProto.FLOAT}
    casts = [node for node in graph.node if node.op_type == "Cast"]
    looks = {"rehue": 3, "seed": 1}[name]
    # Counts in, ab out; into FP16 and out of it at every look.
    assert len(casts) == 2 + 2 * looks


@pytest.mark.parametrize("name", NAMES)
def test_the_contract_and_the_colours_stay(name: str) -> None:
    made, kept = (onnx.load_model_from_string(item) for item in (
        precision.convert_precision(read_model(name), "fp16"), read_model(name)
    ))  # fmt: skip
    assert (made.graph.input, made.graph.output) == (kept.graph.input, kept.graph.output)
    contract = spec.read_model_contract(MODELS / name / "configs" / "gpu.pbtxt")
    found = parity.measure_parity(
        load_network(made.SerializeToString()), load_network(read_model(name)),
        parity.load_photographs(SOME), contract, batch=2,
    )  # fmt: skip
    assert found.list_excesses(parity.TOLERANCE) == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["fp32", "fp16"])
def test_convolutions_have_weights_and_no_tensors(name: str, kind: Precision) -> None:
    """To TensorRT's parser what a Cast gives is a tensor, and the convolution one of two inputs."""
    graph = onnx.load_model_from_string(precision.convert_precision(read_model(name), kind)).graph
    weights = {initializer.name for initializer in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv":
            assert set(node.input[1:]) <= weights
    assert weights == {name for node in graph.node for name in node.input} & weights


def test_fp32_is_the_files_own_arithmetic() -> None:
    counts = np.random.default_rng(0).integers(0, 256, (1, 1, 224, 224), np.uint8)
    found, expected = (
        load_network(item)(counts)
        for item in (precision.convert_precision(read_model("seed"), "fp32"), read_model("seed"))
    )
    np.testing.assert_array_equal(found, expected)


def test_what_a_softmax_makes_colours_of_stays_fp32() -> None:
    """The classes' scores are the network's last convolution; their mean colour is none."""
    kernels = [
        onnx.numpy_helper.from_array(np.ones((2, count, 1, 1), np.float32), name)
        for name, count in (("first", 1), ("scores", 2), ("mean", 2))
    ]
    x, y = (
        onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", channels, 4, 4])
        for name, channels in (("x", 1), ("y", 2))
    )
    nodes = [
        onnx.helper.make_node(operator, inputs, [output], name=output, **attributes)
        for operator, inputs, output, attributes in (
            ("Conv", ["x", "first"], "a", {"kernel_shape": [1, 1]}),
            ("Conv", ["a", "scores"], "b", {"kernel_shape": [1, 1]}),
            ("Softmax", ["b"], "c", {"axis": 1}),
            ("Conv", ["c", "mean"], "y", {"kernel_shape": [1, 1]}),
        )
    ]
    graph = onnx.helper.make_graph(nodes, "classes", [x], [y], kernels)
    proto = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    made = onnx.load_model_from_string(
        precision.convert_precision(proto.SerializeToString(), "fp16")
    ).graph
    types = {initializer.name: initializer.data_type for initializer in made.initializer}
    kinds = [types[node.input[1]] for node in made.node if node.op_type == "Conv"]
    assert kinds == [TensorProto.FLOAT16, TensorProto.FLOAT16, TensorProto.FLOAT]
    assert [found_node.name for found_node in onnx_graph.find_convolutions(nodes)] == ["a", "b"]


def test_a_graph_without_convolutions_is_reported() -> None:
    proto = onnx.load_model_from_string(read_model("seed"))
    for node in proto.graph.node:
        node.op_type = "Relu" if node.op_type == "Conv" else node.op_type
    with pytest.raises(ValueError, match="no convolution"):
        precision.convert_to_fp16(proto)


def test_the_distance_is_the_worst_photographs() -> None:
    """One of three photographs, in calls of two, gets other colours; its distance is returned."""
    contract = spec.read_model_contract(MODELS / "seed" / "configs" / "gpu.pbtxt")
    three = parity.load_photographs([*SOME, PHOTOS / "sklearn_flower.jpg"])
    calls = []

    def off(counts: NDArray[Any]) -> NDArray[Any]:
        calls.append(len(counts))
        field = np.zeros((len(counts), 2, 224, 224), np.float16)
        if len(calls) == 2:
            field[0] = 40
        return field

    def gray(counts: NDArray[Any]) -> NDArray[Any]:
        return np.zeros((len(counts), 2, 224, 224), np.float16)

    found = parity.measure_parity(off, gray, three, contract, batch=2)
    assert calls == [2, 2]
    assert (found.ab_mean, found.ab_largest) == (40, 40)
    assert found.ciede2000 > 10
    nothing = Parity(0, 0, 1e-9)  # the same picture's CIEDE2000 is not always quite 0
    assert parity.measure_parity(gray, gray, three, contract, batch=2).list_excesses(nothing) == []


def test_invalid_picture_is_reported() -> None:
    with pytest.raises(ValueError, match="is not a picture that can be read"):
        parity.load_photographs([PHOTOS / "SOURCES.tsv"])


def test_the_cost_of_seed_is_the_papers_layers() -> None:
    """Counted here layer by layer: 3 x 3 kernels, channels and strides of the paper."""
    layers = [
        (1, 64, 112), (64, 128, 112), (128, 128, 56), (128, 256, 56), (256, 256, 28),
        (256, 512, 28), (512, 512, 28), (512, 256, 28), (256, 128, 28),
        (128, 64, 56), (64, 32, 112), (32, 16, 112), (16, 2, 112),
    ]  # fmt: skip
    found = cost.estimate_cost(precision.convert_precision(read_model("seed"), "fp16"))
    assert found.operations == sum(2 * 9 * made * given * side**2 for given, made, side in layers)
    parameters = sum(9 * given * made + made for given, made, _ in layers)
    assert found.weights == pytest.approx(2 * parameters, abs=64)
    assert parameters == 6_219_410
    whole = cost.estimate_cost(read_model("seed"))
    assert whole.operations == found.operations
    assert whole.traffic > found.traffic


def test_the_bound_is_the_slower_of_arithmetic_and_memory() -> None:
    single = cost.Cost(operations=100, traffic=10, weights=50)
    assert single.compute_bound(4, operations_rate=1, bytes_rate=1) == 400
    assert single.compute_bound(4, operations_rate=100, bytes_rate=1) == 90
