"""The default network, continued from its first weights (`rehue-first.py`).

Source: ours.
Hardware: 2 cores of an AMD EPYC with AVX-512, no GPU, TensorFlow, FP32; shared with other work.
Duration: under two hours (15 to 72 images/s; the schedule was shortened during the run from
    8,500 steps to 5,900 because other work needed the cores).
Score: test, 256 pixels: CIEDE2000 11.06 (gray 12.10, 8.6 % below), colourfulness 0.65 of the
    truth's, better than gray on 60 %, LPIPS 0.184 (gray 0.235).
Command: rehue train training/configs/rehue-second.py --data PHOTOGRAPHS/train-*.tar

What is new: the sources of photographs are balanced (one collection's many rooms had taught it
brown walls), three sources are only used for validation, and the loss measures colour differences
as the eye and the evaluation do: a tint on something gray counts more than a different red.
"""

from pathlib import Path

from rehue_training.learn.config import Config, Stage
from rehue_training.learn.losses import ColorLoss

config = Config(
    name="rehue-second",
    model="rehue",
    serves="rehue",
    start=Path("model_repository/rehue/1/model.onnx"),
    stages=(
        Stage(steps=5300, size=128, batch=32, crop=(0.6, 1.0)),
        Stage(steps=600, size=192, batch=16, crop=(0.8, 1.0)),
    ),
    loss=ColorLoss(distance="perceived", chroma=2.0, coarse=0.5, vividness=0.2),
    learning_rate=7e-4,
    encoder_rate=0.4,
    frozen_blocks=5,
    weight_decay=0.01,
    clip=1.0,
    warmup=100,
    ema=0.997,
    film=0.35,
    balance=0.5,
    validation=0.02,
    held_out=("deepphoto", "smartcrop", "sunhays"),
    gain=1.0,
)
