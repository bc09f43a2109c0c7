"""A network for your own photographs; docs/train-on-your-photographs.md explains each step.

Source: ours; continues from the weights of `rehue`'s U-Net, with the settings of its training.
Hardware: any. The figures are for 2 cores of an AMD EPYC without a GPU.
Duration: 600 steps of 16 photographs of 192 pixels and 400 of 12 of 256; 16 to 33 per second.
Score: depends on the photographs; `rehue evaluate --models rehue mine` compares the two.
Command: cp training/configs/yours.py mine.py, then rehue train mine.py --data YOUR-PHOTOGRAPHS

Most training photographs of `rehue` are for research use or have no stated licence. If that matters
to you, start from `rehue-free`, or remove `start` to begin with ImageNet's encoder; that needs ten
times the steps and `learning_rate=1e-3`.
"""

from pathlib import Path

from rehue_training.learn.config import Config, Stage
from rehue_training.learn.losses import ColorLoss

config = Config(
    name=Path(__file__).stem,  # of the run in runs/, and of the exported model
    model="rehue",
    looks=2,
    start=Path("model_repository/rehue/1/model.onnx"),
    stages=(
        Stage(steps=600, size=192, batch=16, crop=(0.65, 1.0), whole=0.4),
        Stage(steps=400, size=256, batch=12, crop=(0.75, 1.0), whole=0.7),
    ),
    loss=ColorLoss(distance="perceived", chroma=2.0, coarse=0.5, vividness=0.2),
    learning_rate=4e-4,
    decay=0.8,
    encoder_rate=0.4,
    frozen_blocks=5,
    weight_decay=0.01,
    clip=1.0,
    warmup=50,
    ema=0.998,
    film=0.35,  # share of the examples that look like old photographs
    short_side=256,
    validation=0.1,  # share of the photographs that are kept for validation
    validate_on=64,
    log_every=5,
    keep=0.5,
    gain=1.6,  # `rehue gain` measures which of these three values suit your photographs
    pale=0.3,
    bend=15.0,
)
