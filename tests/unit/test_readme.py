"""The README says what the code says."""

import re
import subprocess

from conftest import ROOT

from rehue_serve import settings

README = (ROOT / "README.md").read_text()


def test_settings_are_the_codes() -> None:
    assert settings.table() in README


def test_commands_exist() -> None:
    named = set(re.findall(r"make ([a-z-]+)", README))
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert named <= {line.split()[0] for line in listed.stdout.splitlines()}


def test_files_exist() -> None:
    for path in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / path).exists(), path
