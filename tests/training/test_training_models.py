"""The networks: the paper's table, and the converted encoder against PyTorch."""

import pickle
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray

from rehue_training.network import encoder, models, torchfile

# Output (of a 224x224 input) and parameters, from the paper's table. Two of its
# rows are misprinted there; its total is not.
PAPER = [
    ("Conv2D", (112, 112, 64), 640),
    ("Conv2D", (112, 112, 128), 73_856),
    ("Conv2D", (56, 56, 128), 147_584),
    ("Conv2D", (56, 56, 256), 295_168),
    ("Conv2D", (28, 28, 256), 590_080),
    ("Conv2D", (28, 28, 512), 1_180_160),
    ("Conv2D", (28, 28, 512), 2_359_808),
    ("Conv2D", (28, 28, 256), 1_179_904),
    ("Conv2D", (28, 28, 128), 295_040),
    ("UpSampling2D", (56, 56, 128), 0),
    ("Conv2D", (56, 56, 64), 73_792),
    ("UpSampling2D", (112, 112, 64), 0),
    ("Conv2D", (112, 112, 32), 18_464),
    ("Conv2D", (112, 112, 16), 4_624),
    ("Conv2D", (112, 112, 2), 290),
    ("UpSampling2D", (224, 224, 2), 0),
]

# Computed once with PyTorch 2.13 from the wheel's own state dict, BatchNorm unfolded
# and three equal channels as input: mean, deviation and the value at row 5, column 6 of
# channel 3 of each of `TAPS`, for skimage's cat in gray at 224 pixels.
TORCH_TAPS = [
    (-0.31734, 4.35862, -3.02582),
    (0.48494, 7.5008, -0.33067),
    (0.57236, 6.83193, 6.13843),
    (0.20032, 6.36343, 0.08061),
    (-0.01474, 3.17381, -2.30705),
]
TORCH_LOGITS = {
    "chelsea": {285: 12.3558, 281: 9.679, 282: 8.9133},  # Egyptian cat, tabby, tiger cat
    "coffee": {967: 10.5816, 968: 8.8791, 504: 7.1106},  # espresso, cup, coffee mug
}


def load_gray(name: str) -> NDArray[Any]:
    """1HW1 float32 -1..1 of one of skimage's pictures."""
    picture = getattr(skimage.data, name)()
    small = cv2.resize(picture, (224, 224), interpolation=cv2.INTER_AREA)
    counts = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    return (counts.astype(np.float32) / 127.5 - 1)[None, ..., None]  # type: ignore[no-any-return]


def test_seed_is_the_papers_network_layer_by_layer() -> None:
    model = models.build_seed()
    shapes, x = [], keras.KerasTensor((None, 224, 224, 1))
    for layer in model.layers:
        x = layer.compute_output_spec(x)
        shapes.append(x.shape[1:])
    table = [
        (type(layer).__name__, shape, layer.count_params())
        for layer, shape in zip(model.layers, shapes, strict=True)
    ]
    assert table == PAPER
    assert model.count_params() == 6_219_410


def test_seed_has_the_papers_strides_and_activations() -> None:
    convolutions = [
        layer for layer in models.build_seed().layers if isinstance(layer, keras.layers.Conv2D)
    ]
    assert {layer.kernel_size for layer in convolutions} == {(3, 3)}
    assert {layer.padding for layer in convolutions} == {"same"}
    activations = [layer.activation.__name__ for layer in convolutions]
    assert activations == ["relu"] * (len(convolutions) - 1) + ["tanh"]


def test_rehue_outputs_half_the_size_and_starts_from_gray() -> None:
    model = models.build_rehue()
    ab = model.predict(np.full((1, 64, 96, 1), 50, np.float32), verbose=0)
    assert ab.shape == (1, 32, 48, 2)
    assert not ab.any()


def test_the_encoder_is_in_rehue_with_imagenets_weights() -> None:
    trained = {layer.name: layer for layer in create_classifier(1).layers}
    for layer in models.build_rehue().layers:
        if encoder.get_block_number(layer) is not None and layer.weights:
            ours, theirs = layer.get_weights(), trained[layer.name].get_weights()
            assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", TORCH_LOGITS)
def test_the_encoder_classifies_as_in_pytorch(name: str) -> None:
    logits = create_classifier(1).predict(load_gray(name), verbose=0)[0]
    best = np.argsort(-logits)[:3]
    assert best.tolist() == list(TORCH_LOGITS[name])
    assert logits[best] == pytest.approx(list(TORCH_LOGITS[name].values()), abs=2e-4)


@pytest.mark.parametrize("name", ["lite1", "lite2"])
def test_the_larger_encoders_recognize_gray_pictures(name: str) -> None:
    """Their weights are in the right layers, or the best class would be anything."""
    larger = encoder.ENCODERS[name]
    model = encoder.build_classifier(encoder=larger)
    encoder.load_imagenet_weights(model, larger)
    for picture, classes in TORCH_LOGITS.items():
        logits = model.predict(load_gray(picture), verbose=0)[0]
        assert int(logits.argmax()) in classes


def test_the_encoders_activations_are_pytorchs() -> None:
    model = create_classifier(1)
    blocks = [model.get_layer(f"block{block}_project") for block in encoder.LITE0.taps]
    picture = keras.Input((None, None, 1))
    taps = keras.Model(picture, encoder.extract_features(picture))
    encoder.load_imagenet_weights(taps)
    found = [
        (float(tap.mean()), float(tap.std()), float(tap[0, 5, 6, 3]))
        for tap in taps.predict(load_gray("chelsea"), verbose=0)
    ]
    assert len(blocks) == len(found)
    np.testing.assert_allclose(found, TORCH_TAPS, atol=2e-4)


def test_three_equal_channels_are_the_gray_picture() -> None:
    gray_logits = create_classifier(1).predict(load_gray("coffee"), verbose=0)
    rgb_logits = create_classifier(3).predict(np.repeat(load_gray("coffee"), 3, axis=-1), verbose=0)
    np.testing.assert_allclose(gray_logits, rgb_logits, atol=1e-3)


def test_a_malicious_weights_file_runs_nothing(tmp_path: Path) -> None:
    evil = tmp_path / "evil.pth"
    evil.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(pickle.UnpicklingError, match="system is not allowed"):
        torchfile.read_state(evil)
    assert not (tmp_path / "ran").exists()


def create_classifier(channels: int) -> keras.Model:
    model = encoder.build_classifier(channels=channels)
    encoder.load_imagenet_weights(model)
    return model
