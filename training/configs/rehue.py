"""The default network, continued from its third weights (`rehue-third.py`): two scales.

Source: ours.
Hardware: 2 cores of an AMD EPYC with AVX-512 and bfloat16, no GPU, TensorFlow.
Duration: 26 minutes for 34,000 photographs (16 to 33 per second).
Score: test, 256 pixels: CIEDE2000 10.81 (gray 12.10, 10.7 % below), colourfulness 0.721 of the
    truth's, better than gray on 63.6 %, LPIPS 0.190 (gray 0.235).
Command: rehue train training/configs/rehue.py --data PHOTOGRAPHS/train-*.tar
    (from the weights of commit 54f52ab)

What is new: the output is the mean of the network's outputs for the photograph and for the
photograph at half its size, with the same weights (`models.average_two_scales`). The earlier
weights scored better at 192 pixels than at 256, their size in the server: at 256 each output
depends on too small a part of the scene. The last steps train at the size that is served.
"""

from pathlib import Path

from rehue_training.learn.config import Config, Stage
from rehue_training.learn.losses import ColorLoss

config = Config(
    name="rehue",
    model="rehue",
    looks=2,
    start=Path("model_repository/rehue/1/model.onnx"),
    stages=(
        Stage(steps=1000, size=192, batch=16, crop=(0.65, 1.0), whole=0.4),
        Stage(steps=1500, size=256, batch=12, crop=(0.75, 1.0), whole=0.7),
    ),
    loss=ColorLoss(distance="perceived", chroma=2.0, coarse=0.5, vividness=0.2),
    precision="mixed_bfloat16",
    learning_rate=4e-4,
    decay=0.8,
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
    validate_on=64,
    keep=0.5,
    gain=1.6,
    pale=0.3,
    bend=15.0,
)
