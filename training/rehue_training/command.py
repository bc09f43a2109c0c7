"""The subcommands of `rehue` for training, evaluation and plans.

Modules that need TensorFlow are imported inside the functions, so that `rehue --help`
stays fast.
"""

import argparse
import math
import os
import sys
from pathlib import Path
from typing import Any

from rehue_training.plan import command as plan_command

REPOSITORY = Path("model_repository")
RUNS = Path("runs")
RESULTS = Path("results")


def add_commands(subparsers: Any) -> None:
    """Add `train`, `export`, `gain`, `evaluate`, `figures`, `plan` and `gpu-check`."""
    # Read when TensorFlow is imported; silences its messages about missing GPUs.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _add_train(subparsers)
    _add_export(subparsers)
    _add_gain(subparsers)
    _add_evaluate(subparsers)
    _add_figures(subparsers)
    plan_command.add_commands(subparsers)


def _add_train(subparsers: Any) -> None:
    parser = subparsers.add_parser("train", help="train a network; resumes a run that was stopped")
    parser.add_argument(
        "config", type=Path, help="an experiment, such as training/configs/yours.py"
    )
    _add_data(parser)
    parser.add_argument(
        "--runs", type=Path, default=RUNS, help="folder of checkpoints, logs and cache"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="stop after this time; the run can be resumed",
    )
    _add_manifest(parser)
    parser.set_defaults(run=_train)


def _add_export(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "export", help="write a trained network into the model repository"
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--repository", type=Path, default=REPOSITORY)
    parser.set_defaults(run=_export)


def _add_gain(subparsers: Any) -> None:
    parser = subparsers.add_parser("gain", help="compare chroma curves for an exported network")
    parser.add_argument("config", type=Path)
    _add_data(parser)
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--repository", type=Path, default=REPOSITORY)
    _add_manifest(parser)
    parser.set_defaults(run=_compare_curves)


def _add_evaluate(subparsers: Any) -> None:
    parser = subparsers.add_parser("evaluate", help="measure models on colour photographs")
    _add_data(parser)
    _add_models(parser)
    parser.add_argument("--out", type=Path, default=RESULTS / "evaluation")
    parser.set_defaults(run=_evaluate)


def _add_figures(subparsers: Any) -> None:
    figures = subparsers.add_parser("figures", help="the paper's figures, and contact sheets")
    kinds = figures.add_subparsers(required=True, metavar="FIGURE")
    loss = kinds.add_parser("loss", help="training and validation loss of a run")
    loss.add_argument("folder", type=Path, help="folder of the run, such as runs/seed")
    loss.add_argument("--out", type=Path, default=RESULTS / "loss.png")
    loss.set_defaults(run=_draw_loss)
    pairs = kinds.add_parser("pairs", help="eleven photographs, gray and colorized")
    _add_data(pairs)
    pairs.add_argument("--model", default="seed")
    pairs.add_argument("--repository", type=Path, default=REPOSITORY)
    pairs.add_argument("--out", type=Path, default=RESULTS / "pairs.png")
    pairs.set_defaults(run=_draw_pairs)
    sheet = kinds.add_parser("sheet", help="contact sheet of photographs, colorized by every model")
    _add_data(sheet)
    _add_models(sheet)
    sheet.add_argument("--count", type=int, default=24)
    sheet.add_argument("--across", type=int, default=2, help="photographs per line")
    sheet.add_argument("--out", type=Path, default=RESULTS / "sheet.png")
    sheet.set_defaults(run=_draw_sheet)


def _add_data(parser: Any) -> None:
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, metavar="PATH",
        help="tars, folder trees, or Kaggle's Image Colorization Dataset",
    )  # fmt: skip


def _add_manifest(parser: Any) -> None:
    parser.add_argument(
        "--manifest",
        type=Path,
        help="table of the photographs' licence classes, for configs with `classes`",
    )


def _add_models(parser: Any) -> None:
    parser.add_argument("--models", nargs="+", default=["seed", "rehue"], metavar="MODEL")
    parser.add_argument("--repository", type=Path, default=REPOSITORY)


def _train(arguments: argparse.Namespace) -> int:
    from rehue_training.learn import train

    config = _read_config(arguments.config)
    if config is None:
        return 2
    train.train(
        config,
        arguments.data,
        runs=arguments.runs,
        manifest=arguments.manifest,
        minutes=arguments.minutes,
    )
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from rehue_training.learn import export

    config = _read_config(arguments.config)
    if config is None:
        return 2
    path, parity = export.export_model(config, runs=arguments.runs, repository=arguments.repository)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; difference from Keras: {parity}")
    return 0


def _compare_curves(arguments: argparse.Namespace) -> int:
    from rehue_training.evaluation import gain

    config = _read_config(arguments.config)
    if config is None:
        return 2
    results = gain.measure_curves(
        config,
        arguments.data,
        runs=arguments.runs,
        repository=arguments.repository,
        manifest=arguments.manifest,
    )
    print("\n".join(map(str, results)))
    return 0


def _read_config(path: Path) -> Any:
    """Read the experiment's config; if it is invalid, print why and return None."""
    from rehue_training.learn import config

    try:
        return config.read_config(path)
    except (ValueError, OSError) as error:
        print(f"rehue: {path} is not an experiment.\n{error}", file=sys.stderr)
        return None


def _evaluate(arguments: argparse.Namespace) -> int:
    from rehue_training.evaluation import evaluate

    result = evaluate.evaluate(
        arguments.data,
        repository=arguments.repository,
        models=arguments.models,
        out=arguments.out,
    )
    print(evaluate.format_markdown(result))
    return 0


def _draw_loss(arguments: argparse.Namespace) -> int:
    from rehue_training.evaluation import figures

    figures.draw_loss(arguments.folder, arguments.out)
    return _print_path(arguments.out)


def _draw_pairs(arguments: argparse.Namespace) -> int:
    from rehue_training.evaluation import figures
    from rehue_training.evaluation.colorizer import Colorizer

    model = Colorizer(arguments.repository, arguments.model)
    figures.draw_pairs(arguments.data, model, arguments.out)
    return _print_path(arguments.out)


def _draw_sheet(arguments: argparse.Namespace) -> int:
    from rehue_training.evaluation import figures
    from rehue_training.evaluation.colorizer import Colorizer

    models = [Colorizer(arguments.repository, name) for name in arguments.models]
    figures.draw_sheet(arguments.data, models, arguments.count, arguments.out, arguments.across)
    return _print_path(arguments.out)


def _print_path(path: Path) -> int:
    print(path)
    return 0
