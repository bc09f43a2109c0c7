"""The default network as a GPU should train it: every layer, whole photographs, long.

Source: ours.
Hardware: one GPU with bfloat16, 8 CPU cores or more to feed it.
Duration: not run on a GPU yet; its first steps were tried on a CPU with PyTorch.
Score: none yet.
Command: python3 training/gpu.py train training/configs/rehue-gpu.py --data PHOTOGRAPHS/train-*.tar
"""

from rehue_training.config import Config, Stage
from rehue_training.losses import Colours

config = Config(
    name="rehue-gpu",
    model="rehue",
    looks=2,
    stages=(
        Stage(steps=8000, size=128, batch=64, crop=(0.5, 1.0)),
        Stage(steps=4000, size=192, batch=48, crop=(0.6, 1.0), whole=0.3),
        Stage(steps=2000, size=256, batch=32, crop=(0.8, 1.0), whole=0.7),
    ),
    loss=Colours(distance="perceived", chroma=2.0, coarse=0.5, vividness=0.2),
    precision="mixed_bfloat16",
    learning_rate=1e-3,
    encoder_rate=0.3,
    weight_decay=0.02,
    clip=1.0,
    warmup=300,
    ema=0.999,
    film=0.35,
    balance=0.5,
    validation=0.02,
    held_out=("deepphoto", "smartcrop", "sunhays"),
    validate_every=500,
)
