"""Like `coarse-lite2.py`, with EfficientNet-Lite1 and twice the examples; 13 blocks are trained.

Source: ours.
Hardware: one core of an AMD EPYC with AVX-512 and bfloat16; TensorFlow.
Duration: 35 minutes for 122,000 photographs (50 to 60 per second).
Score: validation, 1,104 photographs: see `rehue-ensemble.py` and EXPERIMENTS.md.
Command: rehue train training/configs/coarse-lite1.py \\
    --data PHOTOGRAPHS/train-*.tar MORE/more-*-?.tar

What is new: a third encoder, and imitated scans of each photograph (`scans`): rotated, with another
contrast, as JPEG. A member of ensembles, not served by itself.
"""

from rehue_training.learn.config import Config, Stage
from rehue_training.learn.losses import ColorLoss

config = Config(
    name="coarse-lite1",
    model="rehue-coarse",
    encoder="lite1",
    stages=(Stage(steps=1900, size=128, batch=64, crop=(0.65, 1.0), whole=0.75),),
    loss=ColorLoss(distance="perceived", chroma=2.0, coarse=0.5, vividness=0.2),
    precision="mixed_bfloat16",
    learning_rate=1e-3,
    decay=0.8,
    encoder_rate=0.4,
    frozen_blocks=8,
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
