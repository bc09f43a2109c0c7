"""`coarse-lite2-long.py` continued: 16 blocks learn, 170,000 photographs of more kinds.

Source: ours.
Hardware: one core of an AMD EPYC with AVX-512 and bfloat16, beside tests; TensorFlow.
Duration: 95 minutes for 288,000 examples (50 per second); the schedule was shortened during the
    run from 5,500 steps.
Score: validation loss 0.1256 (0.1304 to 0.1312 before its rate fell); see `rehue-ensemble.py`
    and EXPERIMENTS.md.
Command: rehue train training/configs/coarse-lite2-all.py \\
    --data PHOTOGRAPHS/train-*.tar MORE/more-*-?.tar
    (from the weights of commit 3a35fed; the sources after `food` in `training/sources.tsv` joined
    at step 2,058)

What is new: 58,000 more photographs (crowds, news portraits, a hundred sports, street fronts,
more rooms and landscapes), two more blocks that learn. A member of ensembles, not served alone.
"""

from pathlib import Path

from rehue_training.learn.config import Config, Stage
from rehue_training.learn.losses import ColorLoss

config = Config(
    name="coarse-lite2-all",
    model="rehue-coarse",
    encoder="lite2",
    start=Path("model_repository/rehue/1/model.onnx"),
    start_scope="lite2/",
    stages=(Stage(steps=4500, size=128, batch=64, crop=(0.65, 1.0), whole=0.75),),
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
    scans=0.35,
    balance=0.5,
    validation=0.02,
    held_out=("deepphoto", "smartcrop", "sunhays", "places"),
    validate_on=768,
    validate_every=250,
    checkpoint_every=50,
    seed=2,
    side=128,
)
