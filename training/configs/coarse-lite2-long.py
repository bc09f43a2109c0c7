"""`coarse-lite2.py` continued: 14 blocks are trained, twice the examples, imitated scans.

Source: ours.
Hardware: one core of an AMD EPYC with AVX-512 and bfloat16; TensorFlow.
Duration: 50 minutes for 160,000 photographs (50 to 60 per second); the schedule was shortened
    during the run from 4,000 steps, and `scans` was added after 360.
Score: validation loss 0.1304 (0.1344 before); see `rehue-ensemble.py` and EXPERIMENTS.md.
Command: rehue train training/configs/coarse-lite2-long.py \\
    --data PHOTOGRAPHS/train-*.tar MORE/more-*-?.tar
    (from the weights of commit eeb1a8e)

What is new: more steps with more trained blocks, which the first run lacked. A member of
ensembles, not served by itself.
"""

from pathlib import Path

from rehue_training.learn.config import Config, Stage
from rehue_training.learn.losses import ColorLoss

config = Config(
    name="coarse-lite2-long",
    model="rehue-coarse",
    encoder="lite2",
    start=Path("model_repository/rehue/1/model.onnx"),
    start_scope="lite2/",
    stages=(Stage(steps=2500, size=128, batch=64, crop=(0.65, 1.0), whole=0.75),),
    loss=ColorLoss(distance="perceived", chroma=2.0, coarse=0.5, vividness=0.2),
    precision="mixed_bfloat16",
    learning_rate=6e-4,
    decay=0.8,
    encoder_rate=0.4,
    frozen_blocks=7,
    weight_decay=0.02,
    clip=1.0,
    warmup=100,
    ema=0.998,
    film=0.35,
    scans=0.35,
    balance=0.5,
    validation=0.02,
    held_out=("deepphoto", "smartcrop", "sunhays", "places"),
    validate_on=768,
    validate_every=250,
    checkpoint_every=50,
    side=128,
)
