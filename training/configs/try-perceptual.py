"""A few minutes from the served weights: with a perceptual term.

Source: ours; Johnson, Alahi and Fei-Fei (2016).
Hardware: 2 cores of an AMD EPYC with AVX-512 and bfloat16, no GPU, TensorFlow.
Duration: minutes.
Score: in `training/EXPERIMENTS.md`, next to its baseline `try-perceived.py`.
Command: rehue train training/configs/try-perceptual.py --data PHOTOGRAPHS/train-*.tar
    (from the weights of commit 54f52ab)
"""

from pathlib import Path

from rehue_training.learn.config import read_config

BASE = read_config(Path(__file__).with_name("try-perceived.py"))
config = BASE.with_changes(
    name="try-perceptual",
    loss=BASE.loss.model_copy(update={"perceptual": 0.1}),
)
