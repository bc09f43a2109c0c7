"""Export of a trained network as the ONNX file that Triton serves.

Input `lightness` UINT8 [N, 1, H, W]: L in counts of 100/255, so one byte per pixel
is sent. Output `ab` FP16 [N, 2, h, w] in Lab units. All scaling is inside the graph.
"""

import json
from collections.abc import Sequence
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
from rehue_core.colorize import ModelSpec
from rehue_core.lab import AB_RANGE
from rehue_training.data.batches import resize_picture
from rehue_training.errors import InputError
from rehue_training.learn import checkpoint, model_folder
from rehue_training.learn.checkpoint import Arrays, Checkpoint
from rehue_training.learn.config import Config, Ensemble, EnsembleMember, read_config
from rehue_training.learn.run import CHECKPOINT, PHOTOGRAPHS, START, build_network
from rehue_training.network import bins
from rehue_training.network.curve import Curve
from rehue_training.network.ensemble import Member, add_ensemble, resize_to
from rehue_training.network.graph import OPSET, Graph, Value, add_network, add_resize, read_weights
from rehue_training.network.models import OUTPUT_SCALE, average_two_scales

LIGHTNESS_SCALE = 100 / 255
NO_CURVE = Curve()
IR_VERSION = 8  # the one of opset 17, so that older runtimes read the file


@dataclass(frozen=True)
class Parity:
    """The difference between the exported file and the Keras network, in Lab units."""

    largest: float
    mean: float

    def __str__(self) -> str:
        return f"mean {self.mean:.4f}, largest {self.largest:.4f} (Lab units)"


def export_model(
    config: Config, *, runs: Path, repository: Path, force: bool = False
) -> tuple[Path, Parity]:
    """Write a run's averaged weights as `repository/<model>/1/model.onnx`.

    If the config keeps a share of the weights that the run started from, the weighted
    mean of both is written. The model's Triton configurations and its card are written
    too, except those that exist and fit.

    Args:
        force: replace the model of another run, or configurations of another network.

    Returns:
        The file, and its difference from the Keras network.

    Raises:
        InputError: there is no checkpoint, or something would be replaced without `force`.
    """
    run, folder = runs / config.name, repository / config.served_name
    spec = describe_contract(config)
    model_folder.check_folder(folder, spec, config.name, force=force)
    model, state = load_trained_network(config, runs)
    proto = convert_to_onnx(model, side=config.side, curve=config.curve, looks=config.looks)
    helper.set_model_props(proto, {model_folder.RUN_KEY: config.name})
    path = folder / "1" / "model.onnx"
    model_folder.write_configurations(folder, spec, f"the run {config.name}")
    write_model(proto, path)
    counts = run / PHOTOGRAPHS
    model_folder.write_card(
        folder,
        spec,
        config,
        step=state.step,
        history=state.history,
        photographs=json.loads(counts.read_text()) if counts.is_file() else None,
    )
    reference = average_two_scales(model) if config.looks == 2 else model
    sample = load_sample_lightness(config.side)
    return path, measure_parity(proto, reference, sample, curve=config.curve)


def load_trained_network(config: Config, runs: Path) -> tuple[keras.Model, Checkpoint]:
    """Load the config's network with its run's averaged weights and ab for an output.

    Raises:
        InputError: there is no checkpoint, or one of another network.
    """
    run = runs / config.name
    if not (run / CHECKPOINT).is_file():
        raise InputError(f"there is no checkpoint in {run}: train first, with `rehue train`")
    state = checkpoint.load(run / CHECKPOINT)
    return _add_ab_output(config, _restore_network(config, run, state.averaged)), state


def describe_contract(config: Config) -> ModelSpec:
    """Return the contract of the network that a config exports."""
    ab_side = round(config.side * OUTPUT_SCALE[config.model])
    return _describe_contract(config.served_name, config.side, ab_side)


def _describe_contract(name: str, side: int, ab_side: int) -> ModelSpec:
    dtypes = np.dtype(np.uint8), np.dtype(np.float16)
    return ModelSpec(name, side, side, ab_side, ab_side, *dtypes, LIGHTNESS_SCALE, 1.0, max_batch=1)


def _restore_network(config: Config, run: Path, weights: Arrays) -> keras.Model:
    """Build the config's network with trained weights, averaged with the start's share."""
    model = build_network(config)
    if config.keep:
        read_weights(model, run / START)
        pairs = zip(model.get_weights(), weights, strict=True)
        weights = [old * config.keep + new * (1 - config.keep) for old, new in pairs]
    try:
        model.set_weights(weights)
    except ValueError as error:
        raise InputError(f"{run / CHECKPOINT} is of another network than {config.model}") from error
    return model


def export_ensemble(config: Ensemble, *, runs: Path, repository: Path, force: bool = False) -> Path:
    """Write an ensemble's members, with the weights that its config names, as one model.

    The model's Triton configurations are written too, except those that fit.

    Args:
        force: replace the model of another run, or configurations of another network.

    Raises:
        InputError: a member has no weights, or something would be replaced without `force`.
    """
    folder = repository / config.served_name
    spec = _describe_contract(config.served_name, config.side, config.side // 2)
    model_folder.check_folder(folder, spec, config.name, force=force)
    proto = convert_ensemble(config, [load_member(member, runs) for member in config.members])
    helper.set_model_props(proto, {model_folder.RUN_KEY: config.name})
    model_folder.write_configurations(folder, spec, f"the ensemble {config.name}")
    write_model(proto, folder / "1" / "model.onnx")
    return folder / "1" / "model.onnx"


def load_member(member: EnsembleMember, runs: Path) -> keras.Model:
    """Load a member's network with the weights that it names, or else its run's.

    Raises:
        InputError: there are none.
    """
    experiment = read_config(member.experiment)
    if member.weights is None:
        return load_trained_network(experiment, runs)[0]
    network = build_network(experiment)
    read_weights(network, member.weights, member.scope)
    return _add_ab_output(experiment, network)


def convert_ensemble(
    config: Ensemble, networks: Sequence[keras.Model], curve: Curve | None = None
) -> onnx.ModelProto:
    """Convert an ensemble's members to one network, ab at half the input's size.

    Args:
        networks: one a member of the config.
        curve: in place of the config's.
    """
    looks = [
        Member(member.scope, network, side, member.weight)
        for member, network in zip(config.members, networks, strict=True)
        for side in member.sides
    ]
    graph, entry = begin_graph(config.side)
    side = config.side // 2
    last = add_ensemble(graph, looks, entry, side, config.edges)
    last = (config.curve if curve is None else curve).add_to_graph(graph, last, AB_RANGE)
    last = config.texture.add_to_graph(graph, last, resize_to(graph, entry, side, "texture/look"))
    return finish_graph(graph, last, config.side, config.served_name)


def load_exported_network(config: Config, repository: Path) -> keras.Model:
    """Load the config's network with the repository's weights, without its chroma curve."""
    network = build_network(config)
    read_weights(network, repository / config.served_name / "1" / "model.onnx")
    return _add_ab_output(config, network)


def _add_ab_output(config: Config, network: keras.Model) -> keras.Model:
    """Make the network output ab, if it outputs scores of bins."""
    if config.model == "rehue-classes":
        return bins.add_annealed_mean(network, config.temperature)
    return network


def load_sample_lightness(side: int) -> NDArray[np.uint8]:
    """Load two photographs for comparing outputs: N x side x side, in counts of 100/255."""
    pictures = [skimage.data.chelsea(), skimage.data.coffee()]
    lightness = [lab.compute_lightness(resize_picture(picture, side, side)) for picture in pictures]
    counts = np.rint(np.stack(lightness) / LIGHTNESS_SCALE)
    return np.asarray(counts, np.uint8)


def convert_to_onnx(
    model: keras.Model, *, side: int, curve: Curve = NO_CURVE, looks: int = 1
) -> onnx.ModelProto:
    """Convert a network to ONNX, for square inputs of one size and any batch.

    Args:
        curve: applied to the chroma of the output.
        looks: 2 converts `models.average_two_scales` of the network.
    """
    graph, entry = begin_graph(side)
    output = add_network(graph, model, entry)
    if looks == 2:
        small = add_resize(graph, entry, 0.5, "half")
        graph.prefix = "half/"
        small = add_network(graph, model, small)
        graph.prefix = ""
        small = add_resize(graph, small, 2, "back")
        total = graph.add_node("Add", [output.name, small.name], "sum")
        output = Value(total, output.height, output.width)
    output = curve.add_to_graph(graph, output, AB_RANGE / looks)
    return finish_graph(graph, output, side, model.name)


def begin_graph(side: int) -> tuple[Graph, Value]:
    """Return a graph with the served networks' input, and L (0..100) in it."""
    graph = Graph()
    graph.add_node("Cast", ["lightness"], "counts", to=TensorProto.FLOAT)
    scale = graph.add_constant("lightness_scale", np.float32(LIGHTNESS_SCALE))
    return graph, Value(graph.add_node("Mul", ["counts", scale], "L"), side, side)


def finish_graph(graph: Graph, output: Value, side: int, name: str) -> onnx.ModelProto:
    """Return the served network whose output is `output` (ab, Lab units)."""
    graph.add_node("Cast", [output.name], "ab", to=TensorProto.FLOAT16)
    shape = ["N", 2, output.height, output.width]
    onnx_graph = helper.make_graph(
        graph.nodes,
        name,
        [helper.make_tensor_value_info("lightness", TensorProto.UINT8, ["N", 1, side, side])],
        [helper.make_tensor_value_info("ab", TensorProto.FLOAT16, shape)],
        list(graph.weights.values()),
    )
    proto = helper.make_model(onnx_graph, opset_imports=[helper.make_opsetid("", OPSET)])
    proto.ir_version, proto.producer_name = IR_VERSION, "rehue"
    onnx.checker.check_model(proto, full_check=True)
    return proto


def write_model(proto: onnx.ModelProto, path: Path) -> None:
    """Write the file by rename, so that a server never loads a partial one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_bytes(proto.SerializeToString())
    new.replace(path)


def measure_parity(
    proto: onnx.ModelProto,
    model: keras.Model,
    counts: NDArray[np.uint8],
    *,
    curve: Curve = NO_CURVE,
) -> Parity:
    """Compare both on the same photographs (NHW uint8, L in counts of 100/255)."""
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (exported,) = session.run(["ab"], {"lightness": counts[:, None]})
    lightness = counts[..., None].astype(np.float32) * np.float32(LIGHTNESS_SCALE)
    expected = curve(model.predict(lightness, verbose=0) * AB_RANGE)
    error = np.abs(exported.transpose(0, 2, 3, 1).astype(np.float32) - expected)
    return Parity(float(error.max()), float(error.mean()))
