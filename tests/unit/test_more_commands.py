"""`rehue compare`, shell completion, and the options of `rehue serve`."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from paths import PHOTOS, ROOT
from PIL import Image

from rehue_client import command
from rehue_serve.embedded import EmbeddedTriton, TritonFailed
from rehue_serve.options import parse_options
from rehue_serve.settings import Settings, SettingsError

COFFEE = PHOTOS / "skimage_coffee.jpg"  # 600 x 400


def test_compare_joins_both_at_one_height(tmp_path: Path) -> None:
    with Image.open(COFFEE) as photograph:
        photograph.convert("L").resize((1200, 800)).save(tmp_path / "before.tif")
    out = tmp_path / "pair.png"
    assert command.main(["compare", str(tmp_path / "before.tif"), str(COFFEE), "-o", str(out)]) == 0
    with Image.open(out) as pair:
        assert pair.size == (600 + 12 + 600, 400)
        pixels = np.asarray(pair).astype(int)
    assert (pixels[:, :600, 0] == pixels[:, :600, 2]).all()
    assert (pixels[:, 612:, 0] - pixels[:, 612:, 2]).mean() > 20  # a red cup on wood


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jpg", str(COFFEE), "-o", "x.png"], "No such file"),
        ([str(COFFEE), str(COFFEE), "-o", "x.unknown"], "unknown file extension"),
        ([str(COFFEE), str(COFFEE), "-o", "x.png", "--height", "0"], "1 to 10000"),
    ],
)
def test_compare_says_what_is_wrong(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["compare", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_and_options(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        command.main(["--print-completion", shell])
    script = capsys.readouterr().out
    assert "--follow-links" in script
    assert "compare" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_options_of_serve_are_its_settings() -> None:
    options = parse_options(["--http-port", "8001", "--cors-origins=https://a.example"])
    assert options == {"REHUE_HTTP_PORT": "8001", "REHUE_CORS_ORIGINS": "https://a.example"}
    every = [f"--{name.replace('_', '-')}=1" for name in Settings.model_fields]
    assert len(parse_options(every)) == len(every)


def test_help_of_serve_lists_its_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "10000")
    with pytest.raises(SystemExit, match="0"):
        command.main(["serve", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name, field in Settings.model_fields.items():
        description = " ".join(str(field.description).replace("`", "").split())
        assert f"--{name.replace('_', '-')} VALUE {description}" in text
    assert "HTTP port. (default: 8000)" in text
    assert str(ROOT) not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--http-prot", "1"], "--http-prot is not an option; did you mean --http-port?"),
        (["--http-port"], "expected one argument"),
        (["now"], "now is not an option; see `rehue serve --settings`"),
    ],
)
def test_unknown_options_of_serve_stop_it(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SettingsError, match=message.replace("?", r"\?")):
        parse_options(arguments)
    assert command.main(["serve", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_missing_model_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(TritonFailed, match="REHUE_MODEL_REPOSITORY"):
        EmbeddedTriton(tmp_path / "nowhere").start()


def test_unknown_options_of_other_commands_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["models", "--nothing"])
    assert "unrecognized arguments: --nothing" in capsys.readouterr().err
