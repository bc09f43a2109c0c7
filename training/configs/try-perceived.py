"""A few minutes from the served weights: the baseline of the other `try-` experiments.

Source: ours; the loss of `rehue.py`.
Hardware: 2 cores of an AMD EPYC with AVX-512 and bfloat16, no GPU, TensorFlow.
Duration: minutes.
Score: in `training/EXPERIMENTS.md`, with the experiments compared to it.
Command: rehue train training/configs/try-perceived.py --data PHOTOGRAPHS/train-*.tar
    (from the weights of commit 54f52ab)
"""

from pathlib import Path

from rehue_training.learn.config import Config, Stage
from rehue_training.learn.losses import ColorLoss

config = Config(
    name="try-perceived",
    model="rehue",
    serves="rehue",
    start=Path("model_repository/rehue/1/model.onnx"),
    stages=(Stage(steps=300, size=192, batch=16, crop=(0.75, 1.0), whole=0.5),),
    loss=ColorLoss(distance="perceived", chroma=2.0, coarse=0.5, vividness=0.2),
    precision="mixed_bfloat16",
    learning_rate=4e-4,
    encoder_rate=0.4,
    frozen_blocks=5,
    weight_decay=0.01,
    clip=1.0,
    warmup=50,
    ema=0.99,
    film=0.35,
    balance=0.5,
    validation=0.02,
    held_out=("deepphoto", "smartcrop", "sunhays"),
    validate_on=64,
)
