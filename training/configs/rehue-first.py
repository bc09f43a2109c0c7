"""The default network, first weights: one hour on two shared cores.

Source: ours (EfficientNet-Lite0, a light U-Net decoder, a robust loss weighted by chroma, AdamW
    with a cosine decay).
Hardware: 2 cores of an AMD EPYC with AVX2, no GPU, TensorFlow, FP32; shared with other work.
Duration: 50 minutes to step 2000 of 2300, where these weights were stopped (12 to 50 images/s).
Score: test, 256 pixels: CIEDE2000 11.52 (gray 12.10), colourfulness 0.59 of the truth's, better
    than gray on 57 %.
Command: rehue train training/configs/rehue-first.py --data PHOTOGRAPHS/train-*.tar

Small crops come first, because a step's cost is proportional to their area. The last steps see
nearly whole photographs at nearly the served size. The encoder's first five blocks (down to 1/8 of
the input's size) are frozen, which makes a step a quarter cheaper.
"""

from rehue_training.learn.config import Config, Stage
from rehue_training.learn.losses import ColorLoss

config = Config(
    name="rehue-first",
    model="rehue",
    serves="rehue",
    stages=(
        Stage(steps=1300, size=96, batch=32, crop=(0.5, 1.0)),
        Stage(steps=900, size=128, batch=32, crop=(0.6, 1.0)),
        Stage(steps=100, size=192, batch=16, crop=(0.8, 1.0)),
    ),
    loss=ColorLoss(chroma=3.0, coarse=0.5, vividness=0.1),
    learning_rate=1e-3,
    encoder_rate=0.3,
    frozen_blocks=5,
    weight_decay=0.01,
    clip=1.0,
    warmup=100,
    ema=0.995,
    film=0.4,
    gain=1.15,
)
