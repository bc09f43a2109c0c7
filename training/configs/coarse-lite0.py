"""Output at an eighth of the size, from the weights of `rehue`, on 118,000 photographs.

Source: ours.
Hardware: 2 cores of an AMD EPYC with AVX-512 and bfloat16, shared with other work at the lowest
    priority; TensorFlow.
Duration: 95 minutes for 154,000 photographs (20 to 60 per second).
Score: validation, 1,104 photographs: see `rehue-ensemble.py` and EXPERIMENTS.md; exported after
    2,400 of 2,600 steps.
Command: rehue train training/configs/coarse-lite0.py \\
    --data PHOTOGRAPHS/train-*.tar MORE/more-*-?.tar

What is new: six times as many photographs (`photos/more/`), fitted into squares once
(`data/squares.py`), and an output at 1/8 of the input's size: a tenth of the work per step.
A member of ensembles, not served by itself.
"""

from pathlib import Path

from rehue_training.learn.config import Config, Stage
from rehue_training.learn.losses import ColorLoss

config = Config(
    name="coarse-lite0",
    model="rehue-coarse",
    encoder="lite0",
    start=Path("model_repository/rehue/1/model.onnx"),
    stages=(Stage(steps=2600, size=128, batch=64, crop=(0.65, 1.0), whole=0.6),),
    loss=ColorLoss(distance="perceived", chroma=2.0, coarse=0.5, vividness=0.2),
    precision="mixed_bfloat16",
    learning_rate=6e-4,
    decay=0.7,
    encoder_rate=0.4,
    frozen_blocks=5,
    weight_decay=0.02,
    clip=1.0,
    warmup=100,
    ema=0.998,
    film=0.35,
    balance=0.5,
    validation=0.02,
    held_out=("deepphoto", "smartcrop", "sunhays", "places"),
    validate_on=768,
    validate_every=250,
    checkpoint_every=100,
    side=128,
)
