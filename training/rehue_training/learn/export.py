"""The trained network as the file that Triton serves.

Input `lightness` UINT8 [N, 1, H, W]: L in counts of 100/255, one byte a pixel on
the wire. Output `ab` FP16 [N, 2, h, w] in Lab units. Everything between, the
scaling included, is inside the graph.
"""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import skimage.data
from numpy.typing import NDArray
from onnx import TensorProto, helper

from rehue_core import lab
from rehue_core.lab import AB_RANGE
from rehue_training.data.batches import resize
from rehue_training.learn import checkpoint
from rehue_training.learn.config import Config
from rehue_training.learn.run import CHECKPOINT, START
from rehue_training.network import bins
from rehue_training.network.curve import Curve
from rehue_training.network.graph import OPSET, Graph, Value, add_network, add_resize, read_weights
from rehue_training.network.models import MODELS, average_two_scales

LIGHTNESS_SCALE = 100 / 255
NO_CURVE = Curve()
IR_VERSION = 8  # of opset 17, so that older runtimes read it


@dataclass(frozen=True)
class Parity:
    """How far the exported file is from the Keras network, in Lab units."""

    largest: float
    mean: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} in the mean, {self.largest:.4f} at most (Lab units)"


def export_model(config: Config, *, runs: Path, repository: Path) -> tuple[Path, Parity]:
    """Writes the averaged weights of a config's run as `repository/model/1/model.onnx`.

    Where the config keeps a share of the weights that it started from, their weighted mean.
    """
    model = MODELS[config.model]()
    weights = checkpoint.load(runs / config.name / CHECKPOINT).averaged
    if config.keep:
        read_weights(model, runs / config.name / START)
        pairs = zip(model.get_weights(), weights, strict=True)
        weights = [old * config.keep + new * (1 - config.keep) for old, new in pairs]
    model.set_weights(weights)
    model = _add_ab_output(config, model)
    proto = convert_to_onnx(model, side=config.side, curve=config.curve, looks=config.looks)
    path = repository / config.served_name / "1" / "model.onnx"
    write_model(proto, path)
    whole = average_two_scales(model) if config.looks == 2 else model
    return path, measure_parity(
        proto, whole, load_sample_lightness(config.side), curve=config.curve
    )


def load_exported_network(config: Config, repository: Path) -> keras.Model:
    """The config's network with the repository's weights and ab for an answer; no curve."""
    network = MODELS[config.model]()
    read_weights(network, repository / config.served_name / "1" / "model.onnx")
    return _add_ab_output(config, network)


def _add_ab_output(config: Config, network: keras.Model) -> keras.Model:
    """The config's network with ab for an answer, whatever it learnt to answer."""
    if config.model == "rehue-classes":
        return bins.add_annealed_mean(network, config.temperature)
    return network


def load_sample_lightness(side: int) -> NDArray[np.uint8]:
    """Two real photographs, N x side x side, in counts of 100/255: to compare outputs on."""
    pictures = [skimage.data.chelsea(), skimage.data.coffee()]
    lightness = [lab.compute_lightness(resize(picture, side, side)) for picture in pictures]
    counts = np.rint(np.stack(lightness) / LIGHTNESS_SCALE)
    return np.asarray(counts, np.uint8)


def convert_to_onnx(
    model: keras.Model, *, side: int, curve: Curve = NO_CURVE, looks: int = 1
) -> onnx.ModelProto:
    """The network at one input size, square, any batch; its chroma goes along the curve.

    With two looks it is `models.average_two_scales` of the network.
    """
    graph = Graph()
    graph.add_node("Cast", ["lightness"], "counts", to=TensorProto.FLOAT)
    scale = graph.add_constant("lightness_scale", np.float32(LIGHTNESS_SCALE))
    entry = Value(graph.add_node("Mul", ["counts", scale], "L"), side, side)
    last = add_network(graph, model, entry)
    if looks == 2:
        small = add_resize(graph, entry, 0.5, "half")
        graph.prefix = "half/"
        small = add_network(graph, model, small)
        graph.prefix = ""
        small = add_resize(graph, small, 2, "back")
        last = Value(graph.add_node("Add", [last.name, small.name], "sum"), last.height, last.width)
    last = curve.add_to_graph(graph, last, AB_RANGE / looks)
    graph.add_node("Cast", [last.name], "ab", to=TensorProto.FLOAT16)
    shape = ["N", 2, last.height, last.width]
    whole = helper.make_graph(
        graph.nodes,
        model.name,
        [helper.make_tensor_value_info("lightness", TensorProto.UINT8, ["N", 1, side, side])],
        [helper.make_tensor_value_info("ab", TensorProto.FLOAT16, shape)],
        list(graph.weights.values()),
    )
    proto = helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)])
    proto.ir_version, proto.producer_name = IR_VERSION, "rehue"
    onnx.checker.check_model(proto, full_check=True)
    return proto


def write_model(proto: onnx.ModelProto, path: Path) -> None:
    """Renames into place, so that a server never loads half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_bytes(proto.SerializeToString())
    fresh.replace(path)


def measure_parity(
    proto: onnx.ModelProto,
    model: keras.Model,
    counts: NDArray[np.uint8],
    *,
    curve: Curve = NO_CURVE,
) -> Parity:
    """Runs both on the same photographs (NHW uint8, L in counts of 100/255)."""
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (served,) = session.run(["ab"], {"lightness": counts[:, None]})
    lightness = counts[..., None].astype(np.float32) * np.float32(LIGHTNESS_SCALE)
    kept = curve(model.predict(lightness, verbose=0) * AB_RANGE)
    error = np.abs(served.transpose(0, 2, 3, 1).astype(np.float32) - kept)
    return Parity(float(error.max()), float(error.mean()))
