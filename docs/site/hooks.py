"""MkDocs hooks: publish documents that are kept outside of docs/, and generated pages.

A link from a document to another file of the repository works in both places: on the
site, Markdown becomes a page and every other file is published as it is, under ``source/``.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

import generated
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent.parent
LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")
OTHER_DOCUMENTS = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "training/EXPERIMENTS.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, the documents elsewhere, and the files that they link to."""
    for path, text in generated.generate_pages().items():
        files.append(File.generated(config, path, content=text))
    cards = [str(card.relative_to(ROOT)) for card in ROOT.glob("model_repository/*/README.md")]
    for document in (*OTHER_DOCUMENTS, *cards):
        files.append(_publish(document, config))
    for file in list(files.documentation_pages()):
        for target in _list_links(_get_source(file), file.content_string):
            if files.get_file_from_path(target) is None and (ROOT / target).is_file():
                name = _get_site_path(target)
                if files.get_file_from_path(name) is None:
                    files.append(_publish(target, config))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links at the paths that their targets have on the site."""
    source = _get_source(page.file)
    folder = posixpath.dirname(page.file.src_uri)

    def replace(match: re.Match[str]) -> str:
        before, link, anchor, after = match.groups()
        target = _resolve(source, link)
        if not (ROOT / target).exists():
            return match[0]  # strict mode reports it
        if (ROOT / target).is_dir():
            return f"{before}{posixpath.relpath(_get_site_path(target), folder or '.')}{after}"
        path = posixpath.relpath(_get_site_path(target), folder or ".")
        return f"{before}{path}{anchor or ''}{after}"

    return LINK.sub(replace, markdown)


def _publish(path: str, config: MkDocsConfig) -> File:
    return File.generated(config, _get_site_path(path), abs_src_path=str(ROOT / path))


def _get_site_path(path: str) -> str:
    """Return a repository path's path on the site."""
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path in OTHER_DOCUMENTS:
        return posixpath.basename(path).lower()
    if match := re.fullmatch(r"model_repository/([\w-]+)/README.md", path):
        return f"models/{match[1]}.md"
    return f"source/{path}"


def _get_source(file: File) -> str:
    """Return the repository path of a page; a generated page's is in docs/."""
    if file.generated_by and file.abs_src_path:
        return str(Path(file.abs_src_path).relative_to(ROOT))
    return f"docs/{file.src_uri}"


def _list_links(source: str, text: str) -> set[str]:
    return {_resolve(source, link) for _, link, _, _ in LINK.findall(text)}


def _resolve(source: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
