"""The default network, continued from its fourth weights (`rehue.py`) on a GPU, at its served size.

Source: ours.
Hardware: one GPU. Timed on an NVIDIA H200 with PyTorch 2.11: 497 photographs per second over 8
    steps, after 37 seconds in which cuDNN selects its kernels.
Duration: about eight minutes at that rate; the full run has not been made.
Score: none yet.
Command: python3 training/gpu.py train training/configs/rehue-gpu.py --data PHOTOGRAPHS/train-*.tar
"""

from pathlib import Path

from rehue_training.learn.config import Config, Stage
from rehue_training.learn.losses import ColorLoss

config = Config(
    name="rehue-gpu",
    model="rehue",
    serves="rehue",
    looks=2,
    start=Path("model_repository/rehue/1/model.onnx"),
    stages=(Stage(steps=2400, size=256, batch=96, crop=(0.6, 1.0), whole=0.5),),
    loss=ColorLoss(distance="perceived", chroma=2.0, coarse=0.5, vividness=0.2),
    precision="mixed_bfloat16",
    learning_rate=8e-4,
    decay=0.7,
    encoder_rate=0.4,
    frozen_blocks=2,
    weight_decay=0.02,
    clip=1.0,
    warmup=60,
    ema=0.998,
    film=0.35,
    balance=0.5,
    validation=0.02,
    held_out=("deepphoto", "smartcrop", "sunhays"),
    validate_on=64,
    validate_every=300,
    checkpoint_every=50,
    keep=0.0,
    gain=1.6,
    pale=0.3,
    bend=15.0,
)
