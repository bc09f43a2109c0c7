"""The default network, continued from its second weights (`rehue-second.py`).

Source: ours.
Hardware: 2 cores of an AMD EPYC with AVX-512 and bfloat16, no GPU, TensorFlow; shared with much
    other work, at idle priority.
Duration: two hours for 172,000 crops (10 to 89 images/s); the schedule was shortened during
    the run from 11,000 steps to 6,000.
Score: test, 256 pixels: CIEDE2000 10.90 (gray 12.10, 9.97 % below), colourfulness 0.654 of the
    truth's, better than gray on 61.6 %, LPIPS 0.181 (gray 0.235).
Command: rehue train training/configs/rehue-third.py --data PHOTOGRAPHS/train-*.tar
    (from the weights of commit 6a88ea2)

What is new: bfloat16 (a third faster, with the depthwise convolutions in FP32); a constant rate
that falls over the last steps, so that the number of steps can be decided during the run; and the
last steps see whole photographs, fitted into the square as in the server.
"""

from pathlib import Path

from rehue_training.learn.config import Config, Stage
from rehue_training.learn.losses import ColorLoss

config = Config(
    name="rehue-third",
    model="rehue",
    serves="rehue",
    start=Path("model_repository/rehue/1/model.onnx"),
    stages=(
        Stage(steps=4000, size=128, batch=32, crop=(0.55, 1.0)),
        Stage(steps=1500, size=160, batch=24, crop=(0.65, 1.0), whole=0.5),
        Stage(steps=500, size=192, batch=16, crop=(0.75, 1.0), whole=0.5),
    ),
    loss=ColorLoss(distance="perceived", chroma=2.0, coarse=0.5, vividness=0.2),
    precision="mixed_bfloat16",
    learning_rate=6e-4,
    decay=1 / 3,
    encoder_rate=0.4,
    frozen_blocks=5,
    weight_decay=0.01,
    clip=1.0,
    warmup=100,
    ema=0.998,
    film=0.35,
    balance=0.5,
    validation=0.02,
    held_out=("deepphoto", "smartcrop", "sunhays"),
    validate_on=256,
    gain=1.0,
)
