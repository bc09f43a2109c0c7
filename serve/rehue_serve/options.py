"""The settings as options of `rehue serve`, and as a table."""

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path

from rehue_serve.settings import Settings, SettingsError, get_variable_name


def parse_options(arguments: Sequence[str]) -> dict[str, str]:
    """Return the variables that options such as ``--http-port 8001`` stand for.

    Raises:
        SettingsError: an option is unknown or has no value.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    options = add_options(parser)
    try:
        found, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise SettingsError(str(error)) from None
    if unknown:
        nearest = difflib.get_close_matches(unknown[0].partition("=")[0], options, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "see `rehue serve --settings`."
        raise SettingsError(f"{unknown[0]} is not an option; {hint}")
    return {get_variable_name(name): value for name, value in vars(found).items()}


def add_options(parser: argparse._ActionsContainer) -> list[str]:
    """Add an option for each setting, with its description; return the options."""
    options = {f"--{name.replace('_', '-')}": name for name in Settings.model_fields}
    for option, name in options.items():
        description = str(Settings.model_fields[name].description).replace("%", "%%")
        default = _format_default(name).replace("%", "%%")
        parser.add_argument(
            option, dest=name, default=argparse.SUPPRESS, metavar="VALUE",
            help=description.replace("`", "") + (default and f" (default: {default})"),
        )  # fmt: skip
    return list(options)


def format_settings_table() -> str:
    """Format the settings as a Markdown table for docs/reference/settings.md."""
    rows = ["| Variable | Default | Meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = _format_default(name)
        shown = default and f"`{default}`"
        rows.append(f"| `{get_variable_name(name)}` | {shown} | {field.description} |")
    return "\n".join(rows)


def _format_default(name: str) -> str:
    """Return a setting's default as text; empty: there is none."""
    default = Settings.model_fields[name].default
    if isinstance(default, Path):
        return default.name + "/"  # without this machine's folders
    return "" if default in ((), None) else str(default)
