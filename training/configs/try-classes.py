"""A few minutes from the served weights: with classes of ab and the annealed mean.

Source: ours; Zhang, Isola and Efros (2016).
Hardware: 2 cores of an AMD EPYC with AVX-512 and bfloat16, no GPU, TensorFlow.
Duration: minutes.
Score: in `training/EXPERIMENTS.md`, next to its baseline `try-perceived.py`.
Command: rehue train training/configs/try-classes.py --data PHOTOGRAPHS/train-*.tar
    (from the weights of commit 54f52ab)
"""

from pathlib import Path

from rehue_training.learn.config import read_config
from rehue_training.learn.losses import ClassificationLoss

BASE = read_config(Path(__file__).with_name("try-perceived.py"))
config = BASE.with_changes(
    name="try-classes",
    model="rehue-classes",
    stages=(BASE.stages[0].model_copy(update={"steps": 600}),),
    loss=ClassificationLoss(chroma=3.0),
)
