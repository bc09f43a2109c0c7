"""`coarse-lite2-long.py` continued: 16 blocks are trained, on 170,000 photographs of more kinds.

Source: ours.
Hardware: one core of an AMD EPYC with AVX-512 and bfloat16, while tests ran; TensorFlow.
Duration: 95 minutes for 288,000 examples (50 per second); the schedule was shortened during the
    run from 5,500 steps.
Score: validation loss 0.1256 (0.1304 to 0.1312 before its rate fell); see `rehue-ensemble.py`
    and EXPERIMENTS.md.
Command: rehue train training/configs/coarse-lite2-all.py \\
    --data PHOTOGRAPHS/train-*.tar MORE/more-*-?.tar
    (from the weights of commit 3a35fed; the sources after `food` in `training/sources.tsv` joined
    at step 2,058)

What is new: 58,000 more photographs (crowds, news portraits, a hundred sports, street fronts,
more rooms and landscapes), two more trained blocks. A member of ensembles, not served by itself.
"""

from pathlib import Path

from rehue_training.learn.config import Stage, read_config

BASE = read_config(Path(__file__).with_name("coarse-lite2-long.py"))
config = BASE.with_changes(
    name="coarse-lite2-all",
    stages=(Stage(steps=4500, size=128, batch=64, crop=(0.65, 1.0), whole=0.75),),
    decay=0.7,
    frozen_blocks=5,
    seed=2,
)
