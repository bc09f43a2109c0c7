"""The default model: the mean of `rehue.py`'s network and two coarse ones.

Source: ours.
Hardware: any; `rehue export` combines trained weights.
Duration: seconds.
Score: test, 256 pixels: CIEDE2000 10.66 (gray 12.10, 11.9 % below), colourfulness 0.724 of the
    truth's, better than gray on 66.6 %, LPIPS 0.189 (gray 0.235). test-2: 8.38 (gray 10.60,
    20.9 % below), 0.758, 71.1 %, LPIPS 0.137 (gray 0.191).
Command: rehue export training/configs/rehue-ensemble.py --force
    (the weights of the first two networks are read from the exported file itself)

What is new: networks that were trained separately, on different photographs, make different errors.
The U-Net is better at edges, the coarse ones at recognizing subjects.
"""

from pathlib import Path

from rehue_training.learn.config import Ensemble, EnsembleMember

CONFIGS = Path("training/configs")
SERVED = Path("model_repository/rehue/1/model.onnx")

config = Ensemble(
    name="rehue-ensemble",
    serves="rehue",
    members=(
        EnsembleMember(
            experiment=CONFIGS / "rehue.py",
            weights=SERVED,
            sides=(256,),
            weight=2.0,
        ),
        EnsembleMember(
            experiment=CONFIGS / "coarse-lite2-all.py",
            weights=SERVED,
            sides=(128,),
            weight=2.0,
            scope="lite2/",
        ),
        EnsembleMember(
            experiment=CONFIGS / "coarse-lite1-all.py", sides=(128,), weight=3.0, scope="lite1/"
        ),
    ),
    gain=1.85,
    pale=0.3,
    bend=15.0,
)
