"""The subcommands that measure models: `rehue gain`, `mix`, `evaluate` and `figures`.

Modules that need TensorFlow are imported inside the functions, so that `rehue --help`
stays fast.
"""

import argparse
from pathlib import Path
from typing import Any

from rehue_training.arguments import REPOSITORY, RESULTS, RUNS, add_data, add_manifest
from rehue_training.errors import InputError, print_errors

MAX_CLICKS = 100  # that the server takes for one photograph


def add_commands(subparsers: Any) -> None:
    """Add `gain`, `mix`, `evaluate` and `figures`."""
    _add_gain(subparsers)
    _add_mix(subparsers)
    _add_evaluate(subparsers)
    _add_figures(subparsers)


def _add_gain(subparsers: Any) -> None:
    parser = subparsers.add_parser("gain", help="compare chroma curves for an exported network")
    parser.add_argument("config", type=Path, help="the experiment")
    add_data(parser)
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the checkpoints")
    parser.add_argument("--repository", type=Path, default=REPOSITORY)
    add_manifest(parser)
    parser.set_defaults(run=_compare_curves)


def _add_mix(subparsers: Any) -> None:
    parser = subparsers.add_parser("mix", help="compare weights of an ensemble's members")
    parser.add_argument("config", type=Path, help="the ensemble")
    add_data(parser)
    parser.add_argument(
        "--split", type=Path, required=True, metavar="CONFIG",
        help="the experiment whose validation photographs are used",
    )  # fmt: skip
    parser.add_argument(
        "--weights", type=_parse_numbers, nargs="+", required=True, metavar="W,W",
        help="weights of the members, in their order, such as 2,2,1 1,1,0",
    )  # fmt: skip
    parser.add_argument(
        "--gains", type=_parse_numbers, default=(1.6, 1.8, 2.0), metavar="G,G",
        help="gains of the chroma curve (default: 1.6,1.8,2.0)",
    )  # fmt: skip
    parser.add_argument(
        "--count", type=int, default=600, help="largest number of photographs (default: 600)"
    )
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the checkpoints")
    parser.add_argument("--repository", type=Path, default=REPOSITORY)
    parser.set_defaults(run=_compare_mixtures)


def _parse_numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers, such as 2,2,1") from None


def _add_evaluate(subparsers: Any) -> None:
    parser = subparsers.add_parser("evaluate", help="measure models on colour photographs")
    add_data(parser)
    _add_models(parser)
    parser.add_argument("--out", type=Path, default=RESULTS / "evaluation")
    choices = parser.add_argument_group(
        "a person's choices", "with any of these, their effect is measured instead"
    )
    choices.add_argument(
        "--clicks", type=_parse_counts, default=(), metavar="N,N",
        help="numbers of simulated clicks, each on the worst place, such as 0,1,2,5,10",
    )  # fmt: skip
    choices.add_argument(
        "--reference", action="store_true", help="the photograph's own palette as a reference"
    )
    choices.add_argument("--candidates", action="store_true", help="the best of the candidates")
    parser.set_defaults(run=_evaluate)


def _parse_counts(text: str) -> tuple[int, ...]:
    counts = text.split(",")
    if not all(count.isdecimal() and int(count) <= MAX_CLICKS for count in counts):
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers up to {MAX_CLICKS}, such as 0,1")
    return tuple(map(int, counts))


def _add_figures(subparsers: Any) -> None:
    figures = subparsers.add_parser("figures", help="draw the paper's figures, and contact sheets")
    kinds = figures.add_subparsers(required=True, metavar="FIGURE")
    loss = kinds.add_parser("loss", help="training and validation loss of a run")
    loss.add_argument("folder", type=Path, help="folder of the run, such as runs/seed")
    loss.add_argument("--out", type=Path, default=RESULTS / "loss.png")
    loss.set_defaults(run=_draw_loss)
    pairs = kinds.add_parser("pairs", help="eleven photographs, gray and colorized")
    add_data(pairs)
    pairs.add_argument("--model", default="seed")
    pairs.add_argument("--repository", type=Path, default=REPOSITORY)
    pairs.add_argument("--out", type=Path, default=RESULTS / "pairs.png")
    pairs.set_defaults(run=_draw_pairs)
    sheet = kinds.add_parser("sheet", help="contact sheet of photographs, colorized by every model")
    add_data(sheet)
    _add_models(sheet)
    sheet.add_argument("--count", type=int, default=24)
    sheet.add_argument("--across", type=int, default=2, help="photographs per line")
    sheet.add_argument("--out", type=Path, default=RESULTS / "sheet.png")
    sheet.set_defaults(run=_draw_sheet)


def _add_models(parser: Any) -> None:
    parser.add_argument("--models", nargs="+", default=["seed", "rehue"], metavar="MODEL")
    parser.add_argument("--repository", type=Path, default=REPOSITORY)


@print_errors
def _compare_curves(arguments: argparse.Namespace) -> int:
    from rehue_training.evaluation import gain
    from rehue_training.learn import config

    results = gain.measure_curves(
        config.read_config(arguments.config),
        arguments.data,
        runs=arguments.runs,
        repository=arguments.repository,
        manifest=arguments.manifest,
    )
    print("\n".join(map(str, results)))
    return 0


@print_errors
def _compare_mixtures(arguments: argparse.Namespace) -> int:
    from rehue_training.evaluation import mixtures
    from rehue_training.learn import config

    experiment = config.read_experiment(arguments.config)
    if not isinstance(experiment, config.Ensemble):
        raise InputError(
            f"{arguments.config} is not an ensemble: use `rehue gain` to compare its curves"
        )
    results = mixtures.measure_mixtures(
        experiment,
        arguments.data,
        split=config.read_config(arguments.split),
        mixtures=arguments.weights,
        gains=arguments.gains,
        count=arguments.count,
        runs=arguments.runs,
        repository=arguments.repository,
    )
    print("\n".join(map(str, results)))
    return 0


@print_errors
def _evaluate(arguments: argparse.Namespace) -> int:
    from rehue_training.evaluation import evaluate, guided

    choices = guided.Choices(arguments.clicks, arguments.reference, arguments.candidates)
    if choices != guided.Choices():
        measured = guided.evaluate_choices(
            arguments.data,
            repository=arguments.repository,
            models=arguments.models,
            choices=choices,
            out=arguments.out,
        )
        print(guided.format_choices(measured))
        return 0
    result = evaluate.evaluate(
        arguments.data,
        repository=arguments.repository,
        models=arguments.models,
        out=arguments.out,
    )
    print(evaluate.format_markdown(result))
    return 0


@print_errors
def _draw_loss(arguments: argparse.Namespace) -> int:
    from rehue_training.evaluation import figures

    figures.draw_loss(arguments.folder, arguments.out)
    return _print_path(arguments.out)


@print_errors
def _draw_pairs(arguments: argparse.Namespace) -> int:
    from rehue_training.evaluation import figures
    from rehue_training.evaluation.colorizer import Colorizer

    model = Colorizer(arguments.repository, arguments.model)
    figures.draw_pairs(arguments.data, model, arguments.out)
    return _print_path(arguments.out)


@print_errors
def _draw_sheet(arguments: argparse.Namespace) -> int:
    from rehue_training.evaluation import figures
    from rehue_training.evaluation.colorizer import Colorizer

    models = [Colorizer(arguments.repository, name) for name in arguments.models]
    figures.draw_sheet(arguments.data, models, arguments.count, arguments.out, arguments.across)
    return _print_path(arguments.out)


def _print_path(path: Path) -> int:
    print(path)
    return 0
