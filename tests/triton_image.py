"""The Triton image's start script in a folder, with a stand-in for the builder."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import cv2
from paths import ROOT
from plan_models import copy_model, load_face, replace_backend

from rehue_serve import embedded
from rehue_serve.ports import claim_free_ports

# The command `rehue` of the image, on a GPU whose driver the environment names.
REHUE = """#!{python}
import argparse, os, sys, time
sys.path.insert(0, {tests!r})
from dataclasses import replace
from standin import H100, create_standin
from rehue_training.plan import command as plan_command
with open(os.environ["STEPS"], "a") as steps:
    print("rehue", *sys.argv[1:], file=steps)
parser = argparse.ArgumentParser()
plan_command.add_commands(parser.add_subparsers())
arguments = parser.parse_args()
if sys.argv[1] != "plan":
    sys.exit(arguments.run(arguments))
gpu = replace(H100, driver=os.environ["DRIVER"])
change = lambda plan: None if os.environ.get("BROKEN") else plan
if os.environ.get("SLOW"):
    change = lambda plan: time.sleep(600)
sys.exit(plan_command.build_plans(arguments, lambda: create_standin(gpu, change=change)))
"""
TRITONSERVER = """#!/bin/sh
echo "tritonserver $PYTHONPATH" >> "$STEPS"
[ -z "${{LATE:-}}" ] || exec {python} {tests}/scripted_triton.py "$@"
exec {real} --backend-directory={backends} "$@"
"""


@dataclass
class Image:
    """What the image holds: the two commands on its path, and a volume with the models."""

    path: Path
    environment: dict[str, str]
    out: int | IO[str] = subprocess.PIPE

    @property
    def steps(self) -> list[str]:
        steps = self.path / "steps"
        return [line.split()[0] for line in steps.read_text().splitlines()]

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [ROOT / "k8s" / "triton" / "start", *arguments],
            env=self.environment | environment,
            cwd=self.path,
            stdout=self.out,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        process = self.start(*arguments, **environment)
        output = process.communicate(timeout=120)[0]
        return process.returncode, output


def build_image(folder: Path) -> Image:
    """Return the image with its script, models and commands in a folder."""
    cv2.imwrite(str(folder / "face.png"), load_face()[..., ::-1])
    model = copy_model(folder / "models")
    config = model / "configs" / "gpu.pbtxt"
    config.write_text(replace_backend(config.read_text()))
    wheel, commands = embedded._find_wheel(), folder / "commands"
    commands.mkdir()
    backends = embedded._copy_backends(wheel, folder)
    real = wheel / "bin" / "tritonserver"
    tests = {"python": sys.executable, "tests": str(Path(__file__).parent)}
    for name, text in (
        ("rehue", REHUE.format(**tests)),
        ("tritonserver", TRITONSERVER.format(real=real, backends=backends, **tests)),
    ):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    environment = embedded._build_environment(wheel, threads=1) | {
        "REHUE_MODEL_REPOSITORY": str(model.parent),
        "STEPS": str(folder / "steps"),
        "TMPDIR": str(folder),
        "DRIVER": "580.82.07",
        "REHUE_PLAN_OPTIONS": f"--photos {folder}/face.png",
    }
    environment["PATH"] = f"{commands}{os.pathsep}{environment['PATH']}"
    return Image(folder, environment)


def wait_until_serving(process: "subprocess.Popen[str]", http: int) -> None:
    """Waits until Triton says that it is ready: its models are loaded and warmed up."""
    for _ in range(1200):
        assert process.poll() is None, process.communicate()[0]
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{http}/v2/health/ready", timeout=2)
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise AssertionError("Triton was not ready")


def choose_ports() -> tuple[list[str], int, int]:
    """Options for tritonserver, and its gRPC and HTTP ports."""
    grpc, http, metrics = claim_free_ports(3)
    options = [f"--grpc-port={grpc}", f"--http-port={http}", f"--metrics-port={metrics}"]
    return options, grpc, http
