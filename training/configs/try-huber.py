"""A few minutes from the served weights: with Huber's distance in ab.

Source: ours; Huber (1964), weighted by chroma as in `seed`'s successors.
Hardware: 2 cores of an AMD EPYC with AVX-512 and bfloat16, no GPU, TensorFlow.
Duration: minutes.
Score: in `training/EXPERIMENTS.md`, next to its baseline `try-perceived.py`.
Command: rehue train training/configs/try-huber.py --data PHOTOGRAPHS/train-*.tar
    (from the weights of commit 54f52ab)
"""

from pathlib import Path

from rehue_training.learn.config import read_config
from rehue_training.learn.losses import ColorLoss

BASE = read_config(Path(__file__).with_name("try-perceived.py"))
config = BASE.with_changes(
    name="try-huber",
    loss=ColorLoss(distance="huber", chroma=2.0, coarse=0.5, vividness=0.2),
)
