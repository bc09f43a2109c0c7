"""`coarse-lite1.py` continued: 14 blocks learn, 170,000 photographs, vividness counts twice.

Source: ours.
Hardware: one core of an AMD EPYC with AVX-512 and bfloat16, beside tests; TensorFlow.
Duration: 83 minutes for 288,000 examples (58 per second).
Score: validation loss 0.1370 (0.1410 after 250 steps); see `rehue-ensemble.py` and
    EXPERIMENTS.md.
Command: rehue train training/configs/coarse-lite1-all.py \\
    --data PHOTOGRAPHS/train-*.tar MORE/more-*-?.tar
    (from the weights of commit 77f1670)

What is new: 48,000 more photographs of other kinds (`sources.tsv`), two more blocks that learn,
twice the weight on vividness. A member of ensembles, not served alone.
"""

from pathlib import Path

from rehue_training.learn.config import Stage, read_config
from rehue_training.learn.losses import ColorLoss

BASE = read_config(Path(__file__).with_name("coarse-lite1.py"))
config = BASE.with_changes(
    name="coarse-lite1-all",
    start=Path("model_repository/rehue/1/model.onnx"),
    start_scope="lite1/",
    stages=(Stage(steps=4500, size=128, batch=64, crop=(0.65, 1.0), whole=0.75),),
    loss=ColorLoss(distance="perceived", chroma=2.0, coarse=0.5, vividness=0.4),
    learning_rate=6e-4,
    decay=0.7,
    frozen_blocks=6,
    seed=3,
)
