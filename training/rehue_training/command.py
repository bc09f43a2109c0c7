"""The subcommands of `rehue` for training, evaluation and plans."""

import os
from typing import Any

from rehue_training.data import command as data_command
from rehue_training.evaluation import command as evaluation_command
from rehue_training.learn import command as learn_command
from rehue_training.plan import command as plan_command


def add_commands(subparsers: Any) -> None:
    """Add the subcommands of each folder."""
    # Read when TensorFlow is imported; silences its messages about missing GPUs.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for command in (data_command, learn_command, evaluation_command, plan_command):
        command.add_commands(subparsers)
