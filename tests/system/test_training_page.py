"""The page "Train on your photographs": its commands, run in order on a small tree."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from paths import MODELS, PHOTOS, ROOT
from photo_trees import write_kaggle_tree

from rehue_serve.testing.servers import run_server

PAGE = ROOT / "docs" / "train-on-your-photographs.md"
SETUP = ("make", ".")  # the environment is there already


def read_commands() -> list[list[str]]:
    """The commands in the page's shell blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    return [words for words in commands if words[0] not in SETUP]


@pytest.mark.timeout(600)  # a minute and a half on an idle machine
def test_the_commands_of_the_page_work(tmp_path: Path) -> None:
    write_kaggle_tree(tmp_path / "archive", 16, side=256)
    shutil.copytree(ROOT / "training" / "configs", tmp_path / "training" / "configs")
    shutil.copytree(MODELS / "rehue", tmp_path / "model_repository" / "rehue")
    commands = read_commands()
    serve = next(index for index, words in enumerate(commands) if words[-1] == "serve")
    for words in commands[:serve]:
        run_command(words, tmp_path)
    assert (tmp_path / "results" / "evaluation" / "evaluation.md").read_text().count("| mine |")

    (setting,) = commands[serve][:-2]
    name, _, model = setting.partition("=")
    settings = {name: model, "REHUE_MODEL_REPOSITORY": str(tmp_path / "model_repository")}
    with run_server(tmp_path / "log", environment=settings, directory=tmp_path) as server:
        for words in commands[serve + 1 :]:
            run_command(words, tmp_path, REHUE_SERVER=server.grpc_url)
        photo = (PHOTOS / "skimage_coffee.jpg").read_bytes()
        headers = {"Content-Type": "image/jpeg"}
        answer = httpx.post(f"{server.http_url}/v1/colorize", content=photo, headers=headers)
        assert answer.headers["X-Rehue-Model"] == "mine/1", "the default model"
    for folder in ("colorized", "compared"):
        assert len(list((tmp_path / folder).rglob("*.jpg"))) == 4


def run_command(words: list[str], folder: Path, **environment: str) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        words,
        cwd=folder,
        env=os.environ | {"PATH": path} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
