"""The evaluation, the figures and the command, on a few real photographs."""

import argparse
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray

from rehue_core import lab
from rehue_core.rgb import convert_to_rgb
from rehue_training import command
from rehue_training.errors import InputError
from rehue_training.evaluation import consistency, evaluate, figures, gain, guided, metrics
from rehue_training.evaluation.colorizer import Colorizer, GrayBaseline
from rehue_training.learn import checkpoint, config
from rehue_training.learn import command as learn_command

ROOT = Path(__file__).parents[2]
REPOSITORY = ROOT / "model_repository"
CONFIGS = ROOT / "training" / "configs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photographs in colour and a gray one."""
    home = tmp_path_factory.mktemp("photographs")
    for name in ("chelsea", "coffee", "astronaut", "rocket", "camera"):
        rgb = getattr(skimage.data, name)()
        bgr = rgb if rgb.ndim == 2 else cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(home / f"{name}.png"), bgr)
    return home


@pytest.fixture(scope="module")
def result(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("evaluation")
    models = ["seed", "rehue"]
    return evaluate.evaluate([folder], repository=REPOSITORY, models=models, out=out), out


def test_models_are_compared_with_gray(result: tuple[dict[str, Any], Path]) -> None:
    found, out = result
    assert found["photographs"] == 4  # the gray one has no true colours to compare with
    assert list(found["models"]) == ["gray", "seed", "rehue"]
    assert json.loads((out / "evaluation.json").read_text())["models"].keys() == {
        "gray", "seed", "rehue",
    }  # fmt: skip
    gray = found["models"]["gray"]
    assert gray["better_than_gray"]["mean"] == gray["ciede2000_below_gray"] == 0
    assert gray["colourfulness"]["mean"] < 1
    for model in found["models"].values():
        low, high = model["ciede2000"]["interval"]
        assert low <= model["ciede2000"]["mean"] <= high
        assert model["frechet_efficientnet_lite0"] > 0


def test_the_table_has_every_metric(result: tuple[dict[str, Any], Path]) -> None:
    text = (result[1] / "evaluation.md").read_text()
    assert "| Measure | gray | seed | rehue |" in text
    for title, *_ in (*evaluate.COLUMNS, *evaluate.SUMMARY_ROWS):
        assert f"| {title}" in text
    assert "no FID" in text


def test_sheets_show_every_method(result: tuple[dict[str, Any], Path]) -> None:
    for part in ("best", "median", "worst"):
        sheet = cv2.imread(str(result[1] / f"{part}.png"))
        assert sheet.shape[1] == 2 * 4 * 220  # two photographs per line, four pictures of each


def test_choices_bring_pictures_nearer_to_the_truth(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = argparse.ArgumentParser()
    command.add_commands(arguments.add_subparsers())
    parsed = arguments.parse_args(
        ["evaluate", "--data", str(folder), "--models", "rehue", "--out", str(tmp_path),
         "--repository", str(REPOSITORY), "--clicks", "0,2,5", "--reference", "--candidates"]
    )  # fmt: skip
    assert parsed.run(parsed) == 0
    found = json.loads((tmp_path / "choices.json").read_text())
    means = found["models"]["rehue"]
    assert found["photographs"] == 4
    assert means["clicks 0"] == means["automatic"]
    assert means["clicks 5"] < means["clicks 2"] < 0.9 * means["automatic"]
    assert means["reference"] < 0.9 * means["automatic"]
    assert means["best of all candidates"] <= means["best of 3 candidates"] <= means["automatic"]
    table = capsys.readouterr().out
    assert table.strip().endswith(guided.format_choices(found).strip())
    assert "| clicks 5 | " in table


def test_no_photographs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no colour photographs"):
        evaluate.evaluate([tmp_path], repository=REPOSITORY, models=["seed"], out=tmp_path)


def test_a_colorizer_keeps_the_photographs_lightness_and_size() -> None:
    photograph = skimage.data.rocket()
    lightness = lab.compute_lightness(photograph)
    picture = Colorizer(REPOSITORY, "rehue").colorize(lightness)
    assert picture.shape == photograph.shape
    # Clipping of colours outside sRGB changes lightness, hence the median.
    assert np.median(np.abs(lab.compute_lightness(picture) - lightness)) < 0.5
    assert not np.array_equal(picture, GrayBaseline().colorize(lightness))


class Shaky:
    """Colours that depend on the scan: its mean lightness tints the whole picture."""

    def colorize(self, lightness: NDArray[Any]) -> NDArray[Any]:
        tint = np.full((1, 1, 2), (lightness.mean() - 40) * 3, np.float32)
        return convert_to_rgb(lightness, tint)


class Steady:
    """Colours that depend on the place alone."""

    def colorize(self, lightness: NDArray[Any]) -> NDArray[Any]:
        ramp = np.linspace(-30, 30, 64, dtype=np.float32)
        return convert_to_rgb(lightness, np.dstack(np.meshgrid(ramp, ramp)))


def test_consistency_is_the_difference_between_scans() -> None:
    """A turn moves `Steady`'s colours by its sine at most; `Shaky`'s follow the contrast."""
    lightness = lab.compute_lightness(skimage.data.coffee())
    gray, steady, shaky = (
        consistency.measure_inconsistency(method, lightness)
        for method in (GrayBaseline(), Steady(), Shaky())
    )
    assert gray < 0.05
    assert steady < 0.8
    assert shaky > 1.5


def test_a_turned_answer_is_turned_back() -> None:
    """The answer for a turned scan is turned back, so colours that depend on the content agree."""

    class ByLightness:
        def colorize(self, lightness: NDArray[Any]) -> NDArray[Any]:
            smooth = cv2.GaussianBlur(lightness, (0, 0), 6)
            return convert_to_rgb(lightness, np.dstack([smooth - 50, 50 - smooth]) / 2)

    scan = consistency.Scan(consistency._make_turn(15), consistency._make_turn(-15))
    lightness = lab.compute_lightness(skimage.data.astronaut())
    method = ByLightness()
    own = consistency._split_ab(method.colorize(lightness))
    other = consistency._split_ab(method.colorize(scan.change(lightness)))
    back = [scan.back(plane) for plane in other]
    assert consistency._compare_fields(own, back) < 0.2 * consistency._compare_fields(own, other)


def test_gains_are_measured_in_order() -> None:
    truth = skimage.data.coffee()
    experiment = config.read_config(CONFIGS / "rehue-free.py")
    rows = gain._score_photograph(truth, gain.load_without_curve(experiment, REPOSITORY))
    vivid = [row[3] for row, curve in zip(rows, gain.CURVES, strict=True) if curve.pale == 1]
    assert len(vivid) > 3
    assert vivid == sorted(vivid)
    # The exported file has the curve that the config chose.
    served = Colorizer(REPOSITORY, "rehue-free").colorize(lab.compute_lightness(truth))
    chosen = dict(zip(gain.CURVES, rows, strict=True))[experiment.curve]
    assert chosen[3] == pytest.approx(metrics.compute_colorfulness(served), abs=0.1)
    pairs = np.array([[10.0, 9.0, 40.0, 30.0], [10.0, 11.0, 40.0, 20.0]])
    found = gain._summarize_curve(experiment.curve, pairs)
    assert found == gain.CurveResult(experiment.curve, pytest.approx(0), 0.5, pytest.approx(0.625))  # type: ignore[arg-type]


def test_the_papers_pair_is_800_by_600(folder: Path, tmp_path: Path) -> None:
    model = Colorizer(REPOSITORY, "seed")
    gray, coloured = figures.make_pair(lab.compute_lightness(skimage.data.coffee()), model)
    assert gray.shape == coloured.shape == (800, 600, 3)
    assert np.abs(np.diff(gray.astype(int), axis=-1)).max() <= 1
    figures.draw_pairs([folder], model, tmp_path / "pairs.png")
    assert cv2.imread(str(tmp_path / "pairs.png")) is not None


def test_loss_and_sheet_are_drawn(folder: Path, tmp_path: Path) -> None:
    history = [{"step": 1.0, "loss": 0.3}, {"step": 2.0, "loss": 0.2, "val_loss": 0.25}]
    checkpoint.save(tmp_path / "checkpoint.npz", checkpoint.Checkpoint(2, [], [], [], history))
    figures.draw_loss(tmp_path, tmp_path / "loss.png")
    (tmp_path / "fresh").mkdir()
    fresh = checkpoint.Checkpoint(0, [], [], [], [])
    checkpoint.save(tmp_path / "fresh" / "checkpoint.npz", fresh)
    with pytest.raises(InputError, match="has not logged a loss yet"):
        figures.draw_loss(tmp_path / "fresh", tmp_path / "fresh.png")
    figures.draw_sheet([folder], [Colorizer(REPOSITORY, "rehue")], 3, tmp_path / "sheet.png")
    for name in ("loss", "sheet"):
        picture = cv2.imread(str(tmp_path / f"{name}.png"))
        assert picture.std() > 10


def test_a_bad_experiment_ends_the_command_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.py"
    good = (ROOT / "training" / "configs" / "seed.py").read_text()
    path.write_text(good.replace("learning_rate=2e-4", "learning_rate=-2"))
    parser = argparse.ArgumentParser()
    command.add_commands(parser.add_subparsers())
    arguments = parser.parse_args(["train", str(path), "--data", str(tmp_path)])
    assert arguments.run(arguments) == 2
    assert "learning_rate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "{seed}", "--data", "nowhere"], "there is nothing at .*nowhere"),
        (["train", "nowhere.py", "--data", "."], "there is no experiment at nowhere.py"),
        (["export", "{seed}"], "there is no checkpoint in runs/seed: train first"),
        (["evaluate", "--data", ".", "--models", "mine"], "there is no model mine in"),
    ],
)
def test_what_a_user_can_put_right_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()
    command.add_commands(parser.add_subparsers())
    arguments = parser.parse_args([word.format(seed=CONFIGS / "seed.py") for word in words])
    assert arguments.run(arguments) == 2
    assert re.fullmatch(rf"rehue: {message}.*\n", capsys.readouterr().err)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python's own handling of Ctrl-C, which a background job does not start with."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_the_first_signal_asks_to_stop_and_the_second_acts_as_usual() -> None:
    stop = threading.Event()
    with learn_command._catch_stop_signals(stop):
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


@pytest.mark.usefixtures("interruptible")
def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop = threading.Event()
    with learn_command._catch_stop_signals(stop):
        signal.raise_signal(signal.SIGINT)
    assert not stop.is_set()


def test_listing_the_commands_loads_no_tensorflow() -> None:
    script = (
        "import argparse, sys; from rehue_training import command;"
        "command.add_commands(argparse.ArgumentParser().add_subparsers());"
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'onnx', 'cv2')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
