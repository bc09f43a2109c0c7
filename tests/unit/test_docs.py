"""The documents agree with the repository: links, anchors, commands, paths and settings."""

import argparse
import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

from rehue_client.v1 import rehue_pb2
from rehue_serve import options
from rehue_serve.errors import get_reason_name
from rehue_serve.statuses import GRPC_STATUS, HTTP_STATUS

DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("model_repository/*/README.md"),
        *ROOT.glob("k8s/**/*.md"),
        *ROOT.glob("training/*.md"),
    ]
)
CODE_FOLDERS = ("clients", "serve", "training", "loadtest", "tests", "k8s", "requirements")
FOLDERS = (*CODE_FOLDERS, "docs", "model_repository")
PACKAGE_ROOTS = ("", "clients", "serve", "training")
# What a reader makes by following the text, and what a build leaves behind.
NOT_COMMITTED = ("rehue-next", "overlays/mine", "model.plan", "model_repository/mine", "mine.py")

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
INLINE_CODE = re.compile(r"`([^`]+)`")
PATH = re.compile(rf"(?<![\w./-])((?:{'|'.join(FOLDERS)})/[\w./-]+|rehue_\w+/[\w./-]+)")
FILE = re.compile(r"(?<![\w./-])\w+\.py\b")
MODULE = re.compile(r"(?<![\w./-])rehue_(?:client|core|serve|training)(?:\.\w+)+")

each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS]
)


def test_settings_page_has_the_table_of_the_code() -> None:
    assert (
        options.format_settings_table() in (ROOT / "docs" / "reference" / "settings.md").read_text()
    )


@pytest.mark.parametrize("error", HTTP_STATUS, ids=get_reason_name)
def test_api_page_has_the_errors_of_the_code(error: Any) -> None:
    row = f"| `{get_reason_name(error)}` | {HTTP_STATUS[error].value} | {GRPC_STATUS[error].name} |"
    assert row in (ROOT / "docs" / "reference" / "api.md").read_text()


def test_api_page_has_every_reason_with_the_statuses_of_the_code() -> None:
    page = (ROOT / "docs" / "reference" / "api.md").read_text()
    rows = re.findall(r"^\| `([A-Z_]+)` \| (\d+) \| ([A-Z_]+) \|", page, re.MULTILINE)
    expected = {
        (get_reason_name(error), str(status.value), GRPC_STATUS[error].name)
        for error, status in HTTP_STATUS.items()
    }
    assert set(rows) == expected
    reasons = set(rehue_pb2.ErrorReason.keys()) - {"ERROR_REASON_UNSPECIFIED"}
    assert {name for name, _, _ in rows} == reasons


@each_document
def test_links_and_anchors_exist(document: Path) -> None:
    for link in LINK.findall(remove_code(document.read_text())):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in list_heading_anchors(target.read_text()), link


def test_every_page_is_reached_from_the_readme() -> None:
    reached, unread = set[Path](), [ROOT / "README.md"]
    while unread:
        document = unread.pop()
        reached.add(document)
        for link in LINK.findall(remove_code(document.read_text())):
            target = (document.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.is_file() and target not in reached:
                unread.append(target)
    pages = {path for path in DOCUMENTS if path.is_relative_to(ROOT / "docs")}
    assert pages <= reached


@each_document
def test_python_examples_import_what_exists(document: Path) -> None:
    for language, block in FENCE.findall(document.read_text()):
        if language == "python":
            lines = (ast.unparse(node) for node in ast.parse(block).body if is_import(node))
            exec("\n".join(lines), {})


@each_document
def test_commands_exist(document: Path) -> None:
    for line in list_command_lines(document.read_text()):
        words = split_words(line)
        while words and re.fullmatch(r"[A-Z_]+=.*|nice|exec|\$", words[0]):
            words.pop(0)
        if words and words[0] == "make":
            targets = list_named_make_targets(words[1:])
            assert targets <= list_make_targets(), line
        if len(words) > 1 and words[0].rpartition("/")[2] == "rehue":
            assert words[1] in read_subcommands() or words[1].startswith("-"), line
            options = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
            assert options <= set(
                re.findall(r"--[\w-]+", read_subcommands().get(words[1], line))
            ), line


@each_document
def test_paths_exist(document: Path) -> None:
    for path in {path.rstrip(".") for path in find_in_code(document, PATH)}:
        if not any(word in path for word in NOT_COMMITTED):
            assert any((ROOT / root / path).exists() for root in PACKAGE_ROOTS), path


@each_document
def test_modules_exist(document: Path) -> None:
    """Files named without their folder, such as `settings.py`, and dotted module names."""
    assert set(find_in_code(document, FILE)) - set(NOT_COMMITTED) <= list_python_files()
    for name in find_in_code(document, MODULE):
        assert is_module_or_member(name), name


@each_document
def test_settings_named_are_read_somewhere(document: Path) -> None:
    named = set(re.findall(r"\bREHUE_[A-Z_]*[A-Z]\b", document.read_text()))
    assert named <= list_variables_read()


def find_in_code(document: Path, pattern: re.Pattern[str]) -> list[str]:
    """Matches in shell blocks, drawings and snippets of code."""
    text = document.read_text()
    code = [block for _, block in FENCE.findall(text)] + INLINE_CODE.findall(remove_fences(text))
    return [match for snippet in code for match in pattern.findall(snippet)]


def is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def remove_fences(text: str) -> str:
    return FENCE.sub("", text)


def remove_code(text: str) -> str:
    return INLINE_CODE.sub("", remove_fences(text))


def list_heading_anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a Markdown text."""
    anchors: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", remove_fences(text), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        anchor = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        number = 0
        while (unique := f"{anchor}-{number}" if number else anchor) in anchors:
            number += 1
        anchors.add(unique)
    return anchors


def list_command_lines(text: str) -> Iterator[str]:
    """Commands of the shell blocks, one after another, and snippets of code in the text."""
    for language, block in FENCE.findall(text):
        if language in ("sh", "bash", "console"):
            for line in block.replace("\\\n", " ").splitlines():
                yield from re.split(r"\s(?:&&|\||;)\s", line)
    for snippet in INLINE_CODE.findall(remove_fences(text)):
        command = " ".join(snippet.split())
        if re.match(r"([A-Z_]+=\S* )*(make|(\S*/)?rehue) ", command):
            yield command.replace(" ...", "")


def split_words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # a quotation that goes on in the next line
        return line.split()


def list_named_make_targets(words: list[str]) -> set[str]:
    targets = set()
    following = iter(words)
    for word in following:
        if word in ("-C", "-f", "-j"):
            next(following)
        elif "=" not in word and not word.startswith("-"):
            targets.add(word)
    return targets


@cache
def list_python_files() -> frozenset[str]:
    return frozenset(path.name for folder in CODE_FOLDERS for path in (ROOT / folder).rglob("*.py"))


def is_module_or_member(name: str) -> bool:
    """Whether a dotted name is a package, a module, or something that a module's text names."""
    *parents, member = name.split(".")
    for root in PACKAGE_ROOTS:
        parent = (ROOT / root).joinpath(*parents)
        if (parent / member).is_dir() or (parent / f"{member}.py").is_file():
            return True
        module = parent / "__init__.py" if parent.is_dir() else parent.with_suffix(".py")
        if module.is_file() and re.search(rf"\b{member}\b", module.read_text()):
            return True
    return False


@cache
def list_make_targets() -> frozenset[str]:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    return frozenset(line.split()[0] for line in listed.stdout.splitlines())


@cache
def read_subcommands() -> dict[str, str]:
    """The help text of each subcommand of `rehue`, by its name."""
    subparsers = argparse.ArgumentParser(prog="rehue").add_subparsers()
    for entry in entry_points(group="rehue.commands"):
        entry.load()(subparsers)
    return {name: parser.format_help() for name, parser in subparsers.choices.items()}


@cache
def list_variables_read() -> frozenset[str]:
    """Every ``REHUE_`` variable that the settings or any file of code names."""
    text = options.format_settings_table()
    for folder in CODE_FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in ("", ".py", ".env", ".yaml"):
                text += path.read_text(errors="ignore")
    return frozenset(re.findall(r"\bREHUE_[A-Z_]*[A-Z]\b", text))
