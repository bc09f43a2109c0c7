"""From the served weights: longer than `rehue.py`, at a higher rate.

Source: ours.
Hardware: 2 cores of an AMD EPYC with AVX-512 and bfloat16, no GPU, TensorFlow; shared with tests.
Duration: 75 minutes for 63,600 photographs (7 to 17 per second).
Score: in `training/EXPERIMENTS.md`: no closer to the truth at the same colourfulness, so it
    is not served.
Command: rehue train training/configs/try-longer.py --data PHOTOGRAPHS/train-*.tar
    (from the weights of commit db047fb)
"""

from pathlib import Path

from rehue_training.learn.config import Stage, read_config

BASE = read_config(Path(__file__).with_name("try-perceived.py"))
config = BASE.with_changes(
    name="try-longer",
    looks=2,
    stages=(
        Stage(steps=2000, size=192, batch=24, crop=(0.6, 1.0), whole=0.5),
        Stage(steps=1300, size=256, batch=12, crop=(0.75, 1.0), whole=0.7),
    ),
    learning_rate=6e-4,
    decay=0.5,
    weight_decay=0.02,
    warmup=100,
    ema=0.998,
    validate_on=256,
    gain=1.6,
    pale=0.3,
    bend=15.0,
)
