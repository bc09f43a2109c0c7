"""The network for a GPU: VGG16 as its authors' weights have it; training, export."""

import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import skimage.data
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from paths import PHOTOS

from rehue_training.data import pack
from rehue_training.learn import export, perception, train
from rehue_training.learn.config import Config, Stage
from rehue_training.learn.losses import ColorLoss
from rehue_training.network import vgg
from rehue_training.network.jaxfile import SCALE, SHIFT, find_weights, read_weights


def compute_reference(picture: NDArray[Any]) -> list[NDArray[Any]]:
    """VGG16's five features (NCHW) of a picture (NHW3, -1..1), by ONNX Runtime."""
    path = find_weights("vgg16")
    assert path, "make installs its weights: requirements/lpips.lock"
    weights = read_weights(path)["VGG16_0"]
    nodes, tensors, outputs, last = [], [], [], "picture"
    numbers = itertools.count()
    for block, convolutions in enumerate(vgg.BLOCKS):
        if block:
            nodes.append(
                helper.make_node(
                    "MaxPool", [last], [f"pool{block}"], kernel_shape=[2, 2], strides=[2, 2]
                )
            )
            last = f"pool{block}"
        for _ in convolutions:
            number = next(numbers)
            kernel, bias = (weights[f"Conv_{number}"][part] for part in ("kernel", "bias"))
            tensors += [
                numpy_helper.from_array(kernel.transpose(3, 2, 0, 1), f"kernel{number}"),
                numpy_helper.from_array(bias, f"bias{number}"),
            ]
            pads = [1 if number else 0] * 4  # the picture is padded before it is normalized
            inputs = [last, f"kernel{number}", f"bias{number}"]
            nodes.append(helper.make_node("Conv", inputs, [f"conv{number}"], pads=pads))
            nodes.append(helper.make_node("Relu", [f"conv{number}"], [f"relu{number}"]))
            last = f"relu{number}"
        outputs.append(last)
    graph = helper.make_graph(
        nodes, "vgg16",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        tensors,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    padded = np.pad(picture, ((0, 0), (1, 1), (1, 1), (0, 0)))
    normalized = ((padded - SHIFT) / SCALE).transpose(0, 3, 1, 2).astype(np.float32)
    return list(session.run(outputs, {"picture": normalized}))


def test_vgg16_computes_what_its_weights_say_for_colour_and_gray() -> None:
    colour = skimage.data.chelsea()[None, 100:164, 100:196].astype(np.float32) / 127.5 - 1
    gray = colour.mean(axis=-1, keepdims=True)
    for picture in (colour, gray):
        entry = keras.Input((None, None, picture.shape[-1]))
        network = keras.Model(entry, vgg.extract_features(entry))
        vgg.load_imagenet_weights(network)
        found = network.predict(picture, verbose=0)
        expected = compute_reference(np.broadcast_to(picture, (*picture.shape[:3], 3)))
        for ours, reference in zip(found, expected, strict=True):
            right = reference.transpose(0, 2, 3, 1)
            np.testing.assert_allclose(ours, right, atol=2e-4 * np.abs(right).max())


def test_vgg16_perceives_a_wrong_colour() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(-0.3, 0.3, (2, 32, 32, 3)).astype(np.float32)
    truth[..., 2] = 0.6
    same = keras.ops.convert_to_numpy(perception.compute_distance(truth, truth[..., :2], "vgg16"))
    other = perception.compute_distance(truth, -truth[..., :2], "vgg16")
    np.testing.assert_allclose(same, 0, atol=1e-6)
    assert (keras.ops.convert_to_numpy(other) > 0.1).all()


def test_the_large_network_is_trained_from_packed_photographs_and_exported(tmp_path: Path) -> None:
    tars, _ = pack.pack_photographs(
        [PHOTOS], tmp_path / "packed", pieces=2, short_side=64, quality=80
    )
    config = Config(
        name="large", model="rehue-large", side=64, validation=0.3, validate_on=2, log_every=1,
        stages=(Stage(steps=2, size=64, batch=2, crop=(0.7, 1.0), whole=0.5),), warmup=1,
        loss=ColorLoss(distance="perceived", perceptual=0.1, perceived_by="vgg16"),
        learning_rate=1e-3, encoder_rate=0.2, precision="mixed_bfloat16", ema=0.5,
    )  # fmt: skip
    done = train.train(config, tars, runs=tmp_path)
    assert done.step == 2
    assert all(np.isfinite(record["loss"]) for record in done.history)
    path, parity = export.export_model(config, runs=tmp_path, repository=tmp_path)
    assert path.stat().st_size < 60e6
    assert parity.largest < 0.5
