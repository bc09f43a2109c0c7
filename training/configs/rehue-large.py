"""A network for a GPU: VGG16 and a U-Net decoder, all dense convolutions.

Source: ours; Johnson, Alahi and Fei-Fei (2016) for the perceptual term.
Hardware: one GPU. Tried with TensorFlow on a CPU for a few steps; the full run has not been made.
Duration: not known. The first piece shows the speed: set `steps` so that the last step is reached,
    because the learning rate falls over the last steps, which helps more than additional steps.
Score: none yet, so no `rehue-large` is served.
Command: python3 training/gpu.py train training/configs/rehue-large.py --data runs/packed

What is new: EfficientNet's depthwise convolutions leave a GPU idle and are made for CPUs. VGG16 has
none, comes with ImageNet's weights, and its own features are the perceptual term.
"""

from rehue_training.learn.config import Config, Stage
from rehue_training.learn.losses import ColorLoss

config = Config(
    name="rehue-large",
    model="rehue-large",
    stages=(
        Stage(steps=4000, size=192, batch=64, crop=(0.6, 1.0), whole=0.6),
        Stage(steps=1500, size=256, batch=48, crop=(0.75, 1.0), whole=0.75),
    ),
    loss=ColorLoss(
        distance="perceived",
        chroma=2.0,
        coarse=0.5,
        vividness=0.2,
        perceptual=0.1,
        perceived_by="vgg16",
    ),
    precision="mixed_bfloat16",
    learning_rate=5e-4,
    decay=0.8,
    encoder_rate=0.2,
    weight_decay=0.02,
    clip=1.0,
    warmup=200,
    ema=0.999,
    film=0.35,
    balance=0.5,
    validation=0.02,
    held_out=("deepphoto", "smartcrop", "sunhays", "places"),
    validate_on=256,
    validate_every=500,
    checkpoint_every=250,
    gain=1.6,
    pale=0.3,
    bend=15.0,
)
