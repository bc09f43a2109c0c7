"""Run `rehue colorize` on a scripted server, in this process or in one of its own."""

import subprocess
import sys
from pathlib import Path

import pytest
from paths import PHOTOS

from rehue_client import command, journal
from rehue_serve.testing.scripted import Action, Refusal, ScriptedServer

COFFEE = PHOTOS / "skimage_coffee.jpg"
COUNT = 40


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of COUNT files, whose contents are not pictures."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(COUNT):
        (folder / f"{number:02}.jpg").write_bytes(b"photo %02d" % number)
    return folder


def refuse_bad(image: bytes) -> Action:
    """Refuse files that begin with ``bad``: the script of a server."""
    return Refusal("INVALID_IMAGE") if image.startswith(b"bad") else None


def run_colorize(scripted: ScriptedServer, *arguments: object) -> int:
    return command.main(["colorize", *map(str, arguments), "--server", scripted.grpc_url])


def start_colorize(scripted: ScriptedServer, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "rehue_client", "colorize", *map(str, arguments),
         "--server", scripted.grpc_url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def list_outputs(folder: Path) -> list[str]:
    """Return the files in a folder, without the journals for ``--resume``."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != journal.NAME)
    return sorted(str(p.relative_to(folder)) for p in files)
