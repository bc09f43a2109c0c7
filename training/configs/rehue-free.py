"""The U-Net, trained only on photographs that are free to publish (classes A, B, C).

Source: ours.
Hardware: 2 cores of an AMD EPYC with AVX-512, no GPU, TensorFlow, bfloat16.
Duration: 36 minutes for 67,000 crops (14 to 46 per second) at idle priority, while a soak test
    was running.
Score: test, 256 pixels: CIEDE2000 11.59 (gray 12.10, 4.2 % below), colourfulness 0.732 of the
    truth's, better than gray on 58.8 %.
Command: rehue train training/configs/rehue-free.py --data PHOTOGRAPHS/train-*.tar
    --manifest PHOTOGRAPHS/MANIFEST.tsv

It has a sixth of the photographs, so it starts from ImageNet's encoder like `rehue-first.py`, with
stronger weight decay. The licences are those stated in the manifest. The encoder's own
weights are Apache-2.0 and were trained on ImageNet.
"""

from rehue_training.learn.config import Config, Stage
from rehue_training.learn.losses import ColorLoss

config = Config(
    name="rehue-free",
    model="rehue",
    serves="rehue-free",
    looks=2,
    classes=("A", "B", "C"),
    stages=(
        Stage(steps=1800, size=128, batch=32, crop=(0.5, 1.0)),
        Stage(steps=400, size=192, batch=16, crop=(0.75, 1.0), whole=0.5),
        Stage(steps=250, size=256, batch=12, crop=(0.8, 1.0), whole=0.7),
    ),
    loss=ColorLoss(distance="perceived", chroma=2.0, coarse=0.5, vividness=0.2),
    precision="mixed_bfloat16",
    learning_rate=1e-3,
    encoder_rate=0.3,
    frozen_blocks=5,
    weight_decay=0.02,
    clip=1.0,
    warmup=100,
    ema=0.995,
    film=0.35,
    balance=0.5,
    gain=1.6,
    pale=0.3,
    bend=15.0,
    validation=0.03,
    validate_on=48,
)
