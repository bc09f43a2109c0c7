"""Ensembles: the mean of their members, and colours whose edges follow the lightness."""

from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from paths import PHOTOS

from rehue_core import lab
from rehue_core.lab import AB_RANGE
from rehue_training.evaluation.colorizer import Colorizer
from rehue_training.learn import checkpoint, config, export
from rehue_training.learn.run import CHECKPOINT
from rehue_training.network import ensemble, models
from rehue_training.network.graph import Graph, Value

ROOT = Path(__file__).parents[2]


def run_graph(graph: Graph, last: Value, counts: NDArray[Any]) -> NDArray[Any]:
    """The graph's answer (N2hw) to counts (NHW uint8)."""
    content = export.finish_graph(graph, last, counts.shape[-1], "test").SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(["ab"], {"lightness": counts[:, None]})[0].astype(np.float32)  # type: ignore[no-any-return]


def create_constant_network(ab: tuple[float, float]) -> keras.Model:
    """A network that answers the same colour everywhere, at half its input's size."""
    lightness = keras.Input((None, None, 1))
    conv = keras.layers.Conv2D(2, 3, strides=2, padding="same", name="constant")
    model = keras.Model(lightness, conv(lightness))
    kernel, _ = conv.get_weights()
    conv.set_weights([np.zeros_like(kernel), np.array(ab) / AB_RANGE])
    return model


def test_the_answer_is_the_weighted_mean_of_the_looks() -> None:
    graph, entry = export.begin_graph(64)
    looks = [
        ensemble.Member("one/", create_constant_network((10, -20)), 64, 1.0),
        ensemble.Member("one/", create_constant_network((10, -20)), 32, 1.0),
        ensemble.Member("two/", create_constant_network((40, 40)), 32, 2.0),
    ]
    last = ensemble.add_ensemble(graph, looks, entry, 32, ensemble.GuidedFilter())
    scale = graph.add_constant("test/scale", np.float32(AB_RANGE))
    last = Value(graph.add_node("Mul", [last.name, scale], "test/lab"), 32, 32)
    found = run_graph(graph, last, export.load_sample_lightness(64))
    assert found.shape == (2, 2, 32, 32)
    np.testing.assert_allclose(found[:, 0], 25, atol=0.1)
    np.testing.assert_allclose(found[:, 1], 10, atol=0.1)


def filter_in_graph(
    counts: NDArray[Any], ab: NDArray[Any], edges: ensemble.GuidedFilter
) -> NDArray[Any]:
    """ab (hw) after the filter, by the graph."""
    graph, entry = export.begin_graph(len(counts))
    both = graph.add_constant("test/ab", np.stack([ab, -ab])[None].astype(np.float32))
    return run_graph(graph, edges.add_to_graph(graph, Value(both, *ab.shape), entry), counts[None])[  # type: ignore[no-any-return]
        0, 0
    ]


def test_the_filter_is_he_sun_and_tangs() -> None:
    gray = cv2.imread(str(PHOTOS / "sklearn_china.jpg"), cv2.IMREAD_GRAYSCALE)
    counts = cv2.resize(gray, (64, 64), interpolation=cv2.INTER_AREA)
    ab = np.random.default_rng(0).normal(0, 20, (64, 64)).astype(np.float32)
    edges = ensemble.GuidedFilter(radius=3, epsilon=20.0)
    lightness = counts * (100 / 255)

    def mean(plane: NDArray[Any]) -> NDArray[Any]:
        return np.array([
            [plane[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4].mean() for x in range(64)]
            for y in range(64)
        ])  # fmt: skip

    of_light, of_ab = mean(lightness), mean(ab)
    slope = (mean(lightness * ab) - of_light * of_ab) / (
        mean(lightness**2) - of_light**2 + edges.epsilon
    )
    expected = mean(slope) * lightness + mean(of_ab - slope * of_light)
    # The rows' means, then the means of those: near the picture's corners the same.
    np.testing.assert_allclose(filter_in_graph(counts, ab, edges), expected, atol=0.05)


def test_colours_end_at_the_photographs_edge() -> None:
    """A blurred border between two colours becomes as sharp as the lightness there."""
    counts = np.full((64, 64), 60, np.uint8)
    counts[:, 32:] = 200
    ramp = np.interp(np.arange(64), [24, 40], [0, 40]).astype(np.float32)
    ab = np.tile(ramp, (64, 1))
    found = filter_in_graph(counts, ab, ensemble.GuidedFilter(radius=8))
    assert np.abs(np.diff(ab[32])).max() < 3
    assert found[32, 32] - found[32, 31] > 15
    flat = filter_in_graph(np.full((64, 64), 60, np.uint8), ab, ensemble.GuidedFilter(radius=8))
    assert np.abs(np.diff(flat[32])).max() < 3


def gate_in_graph(counts: NDArray[Any]) -> float:
    """The share of its chroma that a picture (HW uint8, L in counts) keeps."""
    graph, entry = export.begin_graph(len(counts))
    ab = np.full((1, 2, *counts.shape), 100, np.float32)
    both = Value(graph.add_constant("test/ab", ab), *counts.shape)
    gated = ensemble.TextureGate().add_to_graph(graph, both, entry)
    return float(run_graph(graph, gated, counts[None]).mean()) / 100


def test_a_picture_without_texture_loses_its_chroma() -> None:
    flat = np.full((128, 128), 100, np.uint8)
    ramp = np.tile(np.linspace(60, 200, 128).astype(np.uint8), (128, 1))
    grain = flat + np.random.default_rng(0).integers(-4, 5, flat.shape).astype(np.uint8)
    assert gate_in_graph(flat) == 0
    assert gate_in_graph(ramp) < 0.05
    assert gate_in_graph(grain) < 0.3
    for photo in sorted(PHOTOS.glob("*.jpg")):
        gray = cv2.imread(str(photo), cv2.IMREAD_GRAYSCALE)
        small = cv2.resize(gray, (128, 128), interpolation=cv2.INTER_AREA)
        assert gate_in_graph(small) > 0.8


def test_an_ensemble_is_exported_and_read_again(tmp_path: Path) -> None:
    experiment = tmp_path / "coarse.py"
    experiment.write_text(
        "from rehue_training.learn.config import Config, Stage\n"
        "from rehue_training.learn.losses import ColorLoss\n"
        "config = Config(name='coarse', model='rehue-coarse', side=64, learning_rate=1e-3,\n"
        "    stages=(Stage(steps=1, size=64, batch=1),), loss=ColorLoss())\n"
    )
    network = models.build_rehue_coarse()
    rng = np.random.default_rng(0)
    head = network.layers[-1]
    head.set_weights([rng.normal(0, 0.02, weight.shape) for weight in head.get_weights()])
    alone = tmp_path / "alone.onnx"
    export.write_model(export.convert_to_onnx(network, side=64), alone)
    weights = network.get_weights()
    (tmp_path / "coarse").mkdir()
    state = checkpoint.Checkpoint(1, weights, [2 * weight for weight in weights], [], [])
    checkpoint.save(tmp_path / "coarse" / CHECKPOINT, state)
    plan = config.Ensemble(
        name="mean", side=128, gain=1.2, members=(
            config.EnsembleMember(experiment=experiment, sides=(64, 96), weights=alone),
            config.EnsembleMember(experiment=experiment, sides=(64,), scope="trained/"),
        ),
    )  # fmt: skip
    path = export.export_ensemble(plan, runs=tmp_path, repository=tmp_path)
    assert path == tmp_path / "mean" / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    counts = export.load_sample_lightness(128)[:, None]
    (found,) = session.run(["ab"], {"lightness": counts})
    assert found.shape == (2, 2, 64, 64)
    assert np.abs(found).max() > 1
    first, second = (
        export.load_member(member.model_copy(update={"weights": path}), tmp_path)
        for member in plan.members
    )
    for network, factor in ((first, 1), (second, 2)):
        for weight, two in zip(network.get_weights(), weights, strict=True):
            np.testing.assert_allclose(weight, factor * two, rtol=1e-3, atol=1e-3)


def test_an_ensembles_file_and_its_mistakes(tmp_path: Path) -> None:
    member = {"experiment": ROOT / "training" / "configs" / "seed.py", "sides": (64,)}
    with pytest.raises(ValueError, match="there is no file"):
        config.EnsembleMember(**{**member, "experiment": tmp_path / "none.py"})
    with pytest.raises(ValueError, match="sides"):
        config.EnsembleMember(**{**member, "sides": (60,)})
    with pytest.raises(ValueError, match="scopes"):
        config.Ensemble(name="twice", members=(member, member))
    path = tmp_path / "ensemble.py"
    path.write_text(
        "from rehue_training.learn.config import Ensemble\n"
        f"config = Ensemble(name='one', members=({{**{member!r}}},))".replace("PosixPath", "str")
    )
    assert config.read_experiment(path).served_name == "one"
    with pytest.raises(ValueError, match="train its members"):
        config.read_config(path)


def test_the_default_model_leaves_blank_pictures_gray() -> None:
    model = Colorizer(ROOT / "model_repository", "rehue")
    grain = np.random.default_rng(0).normal(0, 1, (240, 320))
    for level in (10, 40, 70, 95):
        flat = np.full((240, 320), level, np.float32)
        for lightness in (flat, np.clip(flat + grain, 0, 100).astype(np.float32)):
            rgb = model.colorize(lightness).astype(int)
            assert (rgb.max(axis=-1) - rgb.min(axis=-1)).mean() < 8
    photo = np.asarray(cv2.imread(str(PHOTOS / "sklearn_china.jpg"), cv2.IMREAD_GRAYSCALE))
    rgb = model.colorize(lab.compute_lightness(photo)).astype(int)
    assert (rgb.max(axis=-1) - rgb.min(axis=-1)).mean() > 16
