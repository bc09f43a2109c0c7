"""The U-Net of `rehue.py` continued on 119,600 photographs of all sources, for an ensemble.

Source: ours.
Hardware: one core of an AMD EPYC with AVX-512 and bfloat16, while tests ran; TensorFlow.
Duration: 78 minutes for 73,600 examples (20 per second at 192 pixels, 8 to 13 at 256).
Score: alone, 200 validation photographs each at the same colourfulness: new sources 13.4 % below
    gray (9.0 % before), old ones 15.0 % (14.5 %); see EXPERIMENTS.md.
Command: rehue train training/configs/rehue-all.py --data PHOTOGRAPHS/train-*.tar MORE/...
    (from the weights of commit 1bed27d; 40 of the tars, at most 9,600 photographs of a source)

What is new: more photographs than the first 14,723, and twice the weight on vividness. The result
is the mean of the weights before and after (`keep`). Not served: in the mean with the coarse
networks it is better on new sources and worse on old ones.
"""

from pathlib import Path

from rehue_training.learn.config import Stage, read_config
from rehue_training.learn.losses import ColorLoss

BASE = read_config(Path(__file__).with_name("rehue.py"))
config = BASE.with_changes(
    name="rehue-all",
    looks=1,
    stages=(
        Stage(steps=3400, size=192, batch=16, crop=(0.65, 1.0), whole=0.5),
        Stage(steps=1600, size=256, batch=12, crop=(0.75, 1.0), whole=0.7),
    ),
    loss=ColorLoss(distance="perceived", chroma=2.0, coarse=0.5, vividness=0.4),
    learning_rate=5e-4,
    decay=0.6,
    held_out=("deepphoto", "smartcrop", "sunhays", "places"),
    validate_on=192,
    validate_every=500,
    short_side=192,
    keep=0.5,
    seed=7,
)
