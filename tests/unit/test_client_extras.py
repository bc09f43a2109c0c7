"""Subcommands whose package is not installed."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from rehue_client import command


@pytest.fixture
def extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Install packages with commands whose dependencies are missing."""
    (tmp_path / "heavy_package.py").write_text("import a_library_that_is_not_here\n")
    (tmp_path / "lazy_package.py").write_text(
        "def add_commands(subparsers):\n"
        "    def run(namespace):\n"
        "        import a_library_that_is_not_here\n"
        "    subparsers.add_parser('lazy').set_defaults(run=run)\n"
        "    subparsers.add_parser('lighter').set_defaults(run=run, extra='light')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    entries = [
        EntryPoint("client", "rehue_client.command:add_commands", "rehue.commands"),
        EntryPoint("heavy", "heavy_package:add_commands", "rehue.commands"),
        EntryPoint("lazily", "lazy_package:add_commands", "rehue.commands"),
    ]
    monkeypatch.setattr(command, "entry_points", lambda group: entries)
    return "a_library_that_is_not_here"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [(["heavy", "--port", "1"], "heavy"), (["lazy"], "lazily"), (["lighter"], "light")],
)
def test_command_without_its_extra_says_what_to_install(
    extra: str, capsys: pytest.CaptureFixture[str], arguments: list[str], name: str
) -> None:
    assert command.main(arguments) == 2
    output = capsys.readouterr().err
    assert extra in output
    assert f"pip install '.[{name}]'" in output


def test_help_names_missing_extras(extra: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    output = capsys.readouterr().out
    assert "rehue[heavy]" in output
    assert "colorize photographs and folders" in output


def test_missing_module_of_our_own_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("serve", "rehue_serve.nowhere:add_commands", "rehue.commands")
    monkeypatch.setattr(command, "entry_points", lambda group: [entry])
    with pytest.raises(ModuleNotFoundError, match="rehue_serve"):
        command.main(["--help"])
