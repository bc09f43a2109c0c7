"""The web page in real headless Chromium, and the application that serves it."""

import asyncio
import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from paths import ROOT
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from serving import start_service

from rehue_serve import http
from rehue_serve.ports import claim_free_ports

SCREENSHOTS = ROOT / "results" / "page"
TIMEOUT = 30_000  # ms for one expectation; two cores colorize a photograph in under a second


@contextlib.contextmanager
def run_app(triton_url: str, **settings: Any) -> Iterator[str]:
    """Serve HTTP on a free port, without Ray. Yields the URL."""
    (port,) = claim_free_ports(1)
    started, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with start_service(triton_url, **settings) as service:
            config = uvicorn.Config(http.build_http_app(service), port=port, log_level="warning")
            server = uvicorn.Server(config)
            task = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.02)
            started.set()
            await asyncio.to_thread(stop.wait)
            server.should_exit = True
            await task

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert started.wait(30)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def launch_chromium() -> Iterator[Browser]:
    """Launch the machine's Chromium, or skip the test."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        with contextlib.closing(browser):
            yield browser


class WebPage:
    """The page in a tab of its own, with what went wrong in it and what it sent.

    Attributes:
        errors: console errors, which are also what a Content-Security-Policy refuses.
        uploads: URLs of the photographs that were sent.
    """

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.tab: Page = context.new_page()
        self.tab.set_default_timeout(TIMEOUT)
        self.errors: list[str] = []
        self.uploads: list[str] = []
        self.tab.on("console", self._note_error)
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("request", self._note_upload)
        self.tab.goto(url)
        self.tab.wait_for_function("() => document.querySelector('#model').options[0].value === ''")

    def _note_error(self, message: Any) -> None:
        # Chromium reports refused requests here too; tests check those by what the page says.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    def _note_upload(self, request: Any) -> None:
        if "/v1/colorize" in request.url:
            self.uploads.append(request.url)

    def choose(self, *files: Path) -> None:
        """Choose files, as with the button."""
        self.tab.set_input_files("#files", files)

    def wait_until_done(self, text: str = "1 of 1 done") -> None:
        """Wait until nothing is in progress and the page says so in these words."""
        self.tab.wait_for_function(
            "text => document.querySelector('#status').textContent === text"
            " && document.querySelector('#busy').hidden",
            arg=text,
        )

    def wait_until_shown(self) -> None:
        """Wait until the selected photograph's picture is shown."""
        self.tab.wait_for_selector("#viewer:not([hidden])")
        self.tab.wait_for_function("() => document.querySelector('#after img').naturalWidth > 0")

    def take_screenshot(self, name: str) -> None:
        """Save the whole page under ``results/page`` to look at."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.tab.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    def check(self) -> None:
        """Fail if the page has errors, scrolls sideways or violates an accessibility rule."""
        assert self.errors == []
        overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert self.tab.evaluate(overflow) <= 0
        results = Axe().run(self.tab)
        assert results.violations_count == 0, results.generate_report()
