"""The documentation site: it builds without a warning, and its pages lead to each other."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from paths import ROOT

from rehue_client.v1 import rehue_pb2


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.text = path.read_text()
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors.add(values.get("id") or "")
        for name in ("href", "src"):
            if value := values.get(name):
                self.links.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    subprocess.run(
        [Path(sys.executable).with_name("mkdocs"), "build", "--strict", "-q", "-d", directory],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        check=True,
    )
    return directory


def test_every_link_leads_somewhere(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 30
    for path, page in pages.items():
        for link in page.links:
            if link.startswith(("http:", "https:", "mailto:", "data:", "javascript:")):
                continue
            name, _, anchor = unquote(link).partition("#")
            target = (path.parent / name).resolve() if name else path
            assert target.exists(), f"{path.name}: {link}"
            if anchor and target in pages and not anchor.startswith("__"):
                assert anchor in pages[target].anchors, f"{path.name}: {link}"


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        for line in path.read_text().splitlines():
            assert not ("<script" in line and 'src="http' in line), path
            assert not ('rel="stylesheet"' in line and 'href="http' in line), path


def test_reference_is_the_codes(site: Path) -> None:
    options = (site / "reference" / "options.html").read_text()
    assert "--follow-links" in options
    http = (site / "reference" / "http.html").read_text()
    assert "POST /v1/colorize" in http
    assert "UNKNOWN" not in http
    grpc = (site / "reference" / "grpc.html").read_text()
    for method in rehue_pb2.DESCRIPTOR.services_by_name["Colorizer"].methods:
        assert f"Colorizer/{method.name}" in grpc
    sdk = (site / "reference" / "sdk.html").read_text()
    assert "colorize_many" in sdk
    assert "Overloaded" in sdk
