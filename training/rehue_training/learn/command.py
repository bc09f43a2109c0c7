"""The subcommands `rehue train` and `rehue export`.

Modules that need TensorFlow are imported inside the functions, so that `rehue --help`
stays fast.
"""

import argparse
import contextlib
import math
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rehue_training.arguments import REPOSITORY, RUNS, add_data, add_manifest
from rehue_training.errors import print_errors

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPED = 130  # exit code of a run that a signal stopped


def add_commands(subparsers: Any) -> None:
    """Add `train` and `export`."""
    _add_train(subparsers)
    _add_export(subparsers)


def _add_train(subparsers: Any) -> None:
    parser = subparsers.add_parser("train", help="train a network; resumes a run that was stopped")
    parser.add_argument(
        "config", type=Path, help="an experiment, such as training/configs/yours.py"
    )
    add_data(parser)
    parser.add_argument(
        "--runs", type=Path, default=RUNS, help="folder of checkpoints, logs and cache"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="stop after this time; the run can be resumed",
    )
    add_manifest(parser)
    parser.set_defaults(run=_train)


def _add_export(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "export", help="write a trained network into the model repository"
    )
    parser.add_argument("config", type=Path, help="the experiment")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the checkpoints")
    parser.add_argument("--repository", type=Path, default=REPOSITORY)
    parser.add_argument("--force", action="store_true", help="replace the model of another run")
    parser.set_defaults(run=_export)


@print_errors
def _train(arguments: argparse.Namespace) -> int:
    from rehue_training.learn import config, train

    experiment = config.read_config(arguments.config)
    stop = threading.Event()
    with _catch_stop_signals(stop):
        state = train.train(
            experiment,
            arguments.data,
            runs=arguments.runs,
            manifest=arguments.manifest,
            minutes=arguments.minutes,
            should_stop=stop.is_set,
        )
    if state.step < experiment.steps:
        print(f"stopped after step {state.step}; the same command continues from there")
    return STOPPED if stop.is_set() else 0


@contextlib.contextmanager
def _catch_stop_signals(stop: threading.Event) -> Iterator[None]:
    """Set an event on the first SIGINT or SIGTERM; the second one acts as usual.

    A signal that is ignored, as SIGINT is in a shell's background jobs, stays ignored.
    """

    def request_stop(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, previous[signal.Signals(number)])

    previous = {
        number: signal.signal(number, request_stop)
        for number in STOP_SIGNALS
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@print_errors
def _export(arguments: argparse.Namespace) -> int:
    from rehue_training.learn import config, export

    experiment = config.read_experiment(arguments.config)
    to = {"runs": arguments.runs, "repository": arguments.repository, "force": arguments.force}
    if isinstance(experiment, config.Ensemble):
        path = export.export_ensemble(experiment, **to)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
        return 0
    path, parity = export.export_model(experiment, **to)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; difference from Keras: {parity}")
    print(f"serve it: REHUE_MODEL={experiment.served_name} rehue serve")
    return 0
