"""The paper's CNN, trained for 17 minutes on two shared cores.

Source: "Image Colorization Using CNN", R. Purnomo, 2023: its network, preprocessing (L
    unscaled, ab / 128), loss (mean squared error), optimizer (Adam) and metric (accuracy).
Hardware: 2 cores of an AMD EPYC with AVX2, no GPU, TensorFlow, FP32; 10 to 24 images/s.
Duration: 17 minutes, while other work was running (10 to 24 images/s).
Score: validation loss 0.01026; test, 256 pixels: CIEDE2000 12.83 (gray 12.10), a faint brown.
Command: rehue train training/configs/seed.py --data PHOTOGRAPHS/train-*.tar

The paper trains on whole photographs at 224 pixels for several epochs. A step at 224 pixels costs
43 GFLOP per photograph, two photographs per second on these cores, so this run sees few crops, of
64 pixels. With Adam's usual rate of 1e-3 the network stopped learning within 100 steps (L is 0 to
100, and every output became the same brown); 2e-4 after a warm-up works. This is the paper's
network, briefly trained; it does not reproduce the paper's result.
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
