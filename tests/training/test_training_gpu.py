"""The script for a machine with a GPU: training in pieces, from tars."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np

from rehue_training.learn import checkpoint

ROOT = Path(__file__).parents[2]
CONFIG = """
from rehue_training.learn.config import Config, Stage
from rehue_training.learn.losses import ColorLoss
config = Config(
    name="piece", model="rehue", stages=(Stage(steps=2, size=32, batch=2),),
    loss=ColorLoss(distance="perceived"), precision="mixed_bfloat16", learning_rate=1e-3,
    validation=0.2, validate_on=2,
)
"""


def test_a_run_can_be_trained_in_pieces(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        for photo in sorted((ROOT / "tests" / "photos").glob("*.jpg"))[:6]:
            tar.add(photo, photo.name)
    (tmp_path / "piece.py").write_text(CONFIG)
    # rehue is not on the path in this folder: the script finds it itself.
    first = run_piece(tmp_path, minutes="0")
    second = run_piece(tmp_path, minutes="5")
    assert "piece: 0 of 2 steps done" in first
    assert "piece: 2 of 2 steps done" in second
    run = tmp_path / "runs" / "piece"
    whole, averaged = (checkpoint.load(run / name) for name in ("checkpoint.npz", "averaged.npz"))
    assert averaged.step == whole.step == 2
    assert (run / "averaged.npz").stat().st_size < (run / "checkpoint.npz").stat().st_size / 7
    for ours, half in zip(whole.averaged, averaged.averaged, strict=True):
        np.testing.assert_allclose(half, ours, rtol=1e-3, atol=1e-3)


def run_piece(folder: Path, *, minutes: str) -> str:
    command = [str(ROOT / "training" / "gpu.py"), "train", "piece.py", "--data", "train.tar"]
    # The tests only have TensorFlow; without the variable the script looks for a GPU.
    done = subprocess.run(
        [sys.executable, *command, "--minutes", minutes, "--runs", "runs"],
        cwd=folder,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
