"""The paper's CNN, as far as two shared cores go in 17 minutes.

Source: "Image Colorization Using CNN", R. Purnomo, 2023: its network, preprocessing (L as it
    is, ab / 128), loss (mean squares), optimizer (Adam) and metric (accuracy).
Hardware: 2 cores of an AMD EPYC with AVX2, no GPU, TensorFlow, FP32; 10 to 24 images/s.
Duration: 17 minutes beside other work (10 to 24 images/s).
Score: validation loss 0.01026; test, 256 pixels: CIEDE2000 12.83 (gray 12.10), a faint brown.
Command: rehue train training/configs/seed.py --data PHOTOGRAPHS/train-*.tar

Unlike the paper, which trains on whole photographs at 224 pixels for epochs: one squared step
at 224 pixels costs 43 GFLOP a photograph, two photographs a second here, so this run sees crops
of 64 pixels, and few of them. Adam's usual rate of 1e-3 killed the network within 100 steps (L
comes in as 0 to 100, and every answer was one brown): 2e-4 after a warm-up does not. Take it as
the paper's network briefly trained, not as the paper's result.
"""

from rehue_training.learn.config import Config, Stage
from rehue_training.learn.losses import MeanSquaredError

config = Config(
    name="seed",
    model="seed",
    stages=(Stage(steps=360, size=64, batch=32, crop=(0.35, 0.7)),),
    loss=MeanSquaredError(),
    learning_rate=2e-4,
    warmup=50,
    decay=0.0,
    side=224,
    validate_every=20,
)
