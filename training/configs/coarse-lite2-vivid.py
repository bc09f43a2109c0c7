"""Trial: only the head of `coarse-lite2-all.py`, with four times the weight on vividness.

Source: ours.
Hardware: one core of an AMD EPYC with AVX-512 and bfloat16; TensorFlow.
Duration: 5 minutes for 32,000 examples (130 per second).
Score: at the same colourfulness CIEDE2000 is as before, but the colourfulness of each photograph
    is closer to the original's; see EXPERIMENTS.md.
Command: rehue train training/configs/coarse-lite2-vivid.py \\
    --data PHOTOGRAPHS/train-*.tar MORE/more-*-?.tar
    (from the weights of commit 1bed27d)

What is new: a head that is as vivid as the photographs needs less of the chroma curve.
"""

from pathlib import Path

from rehue_training.learn.config import Stage, read_config
from rehue_training.learn.losses import ColorLoss

BASE = read_config(Path(__file__).with_name("coarse-lite2-all.py"))
config = BASE.with_changes(
    name="coarse-lite2-vivid",
    stages=(Stage(steps=500, size=128, batch=64, crop=(0.65, 1.0), whole=0.75),),
    loss=ColorLoss(distance="perceived", chroma=2.0, coarse=0.5, vividness=0.8),
    learning_rate=5e-4,
    decay=1.0,
    warmup=30,
    frozen_blocks=21,
    seed=5,
)
