"""The web page in a browser: what people see and do, on a real Triton."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import httpx
import numpy as np
import pytest
from browser import WebPage, launch_chromium, run_app
from paths import PHOTOS
from PIL import Image
from playwright.sync_api import Browser, ViewportSize

from rehue_serve.embedded import EmbeddedTriton

ASTRONAUT = PHOTOS / "skimage_astronaut.jpg"
COFFEE = PHOTOS / "skimage_coffee.jpg"
DESKTOP: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 320, "height": 640}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launch_chromium() as running:
        yield running


@pytest.fixture(scope="module")
def url(triton: EmbeddedTriton) -> Iterator[str]:
    with run_app(triton.url) as address:
        yield address


@pytest.fixture
def web(browser: Browser, url: str) -> Iterator[WebPage]:
    context = browser.new_context(viewport=DESKTOP, accept_downloads=True)
    page = WebPage(context, url)
    yield page
    assert page.errors == []
    context.close()


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A TIFF, a broken JPEG and a scan of 12 megapixels."""
    directory = tmp_path_factory.mktemp("scans")
    with Image.open(COFFEE) as photograph:
        gray = photograph.convert("L")
    gray.save(directory / "scan.tif")
    gray.resize((4000, 3000)).save(directory / "large.jpg", quality=90)
    (directory / "broken.jpg").write_bytes(ASTRONAUT.read_bytes()[:2000])
    gray.save(directory / "old photo.png")
    return {path.stem: path for path in directory.iterdir()}


def download(web: WebPage, button: str) -> tuple[str, bytes]:
    with web.tab.expect_download() as waiting:
        web.tab.click(button)
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def test_several_photographs_of_which_one_is_broken(web: WebPage, scans: dict[str, Path]) -> None:
    web.choose(ASTRONAUT, scans["broken"], scans["scan"])
    web.wait_until_done("2 of 3 done, 1 failed")
    web.check()
    web.take_screenshot("queue")
    broken = web.tab.locator(".photograph.failed")
    assert broken.locator("b").inner_text() == "broken.jpg"
    broken.click()
    assert web.tab.locator("#alarm").is_visible()
    web.check()
    web.take_screenshot("error")
    name, data = download(web, "#download-all")
    assert name == "rehue.zip"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["scan-colour.tif", "skimage_astronaut-colour.jpg"]
        assert Image.open(archive.open("scan-colour.tif")).mode == "RGB"


def test_tiff_is_shown_as_jpeg_and_downloaded_as_tiff(web: WebPage, scans: dict[str, Path]) -> None:
    web.choose(scans["scan"])
    web.wait_until_shown()
    assert web.tab.locator("#before canvas").is_visible()
    name, data = download(web, "#download")
    assert name == "scan-colour.tif"
    assert Image.open(io.BytesIO(data)).format == "TIFF"
    assert ["format=jpeg" in upload for upload in web.uploads] == [True, False]
    web.check()


def test_download_is_the_picture_that_is_shown(web: WebPage) -> None:
    web.choose(ASTRONAUT)
    web.wait_until_shown()
    name, data = download(web, "#download")
    assert name == "skimage_astronaut-colour.jpg"
    assert len(web.uploads) == 1
    web.tab.select_option("#format", "png")
    name, data = download(web, "#download")
    assert name == "skimage_astronaut-colour.png"
    assert Image.open(io.BytesIO(data)).format == "PNG"


def set_strength(web: WebPage, value: float) -> None:
    web.tab.locator("#strength").evaluate(
        "(slider, value) => { slider.value = value;"
        " slider.dispatchEvent(new Event('input', {bubbles: true})); }",
        value,
    )


def test_strength_below_one_is_blended_and_above_is_asked_for(web: WebPage, url: str) -> None:
    web.choose(COFFEE)
    web.wait_until_shown()
    web.tab.locator("#seam").fill("0")
    web.tab.click("[data-zoom=full]")
    set_strength(web, 0.5)
    web.tab.wait_for_timeout(900)
    assert len(web.uploads) == 1
    shown = Image.open(io.BytesIO(web.tab.locator("#frame").screenshot())).convert("RGB")
    answer = httpx.post(f"{url}/v1/colorize?strength=0.5", content=COFFEE.read_bytes())
    wanted = Image.open(io.BytesIO(answer.content)).resize(shown.size)
    difference = np.abs(np.asarray(shown, float) - np.asarray(wanted, float))
    assert difference[:, shown.width // 4 : shown.width // 3].mean() < 4
    set_strength(web, 1.6)
    web.tab.wait_for_function("() => document.querySelector('#busy').hidden === false")
    web.wait_until_done()
    assert len(web.uploads) == 2
    assert "strength=1.6" in web.uploads[1]
    set_strength(web, 0.3)
    web.tab.wait_for_timeout(900)
    assert len(web.uploads) == 2
    assert web.tab.locator("#strength").get_attribute("aria-valuetext") == "0.3, paler"


def test_seam_follows_keyboard_and_pointer(web: WebPage) -> None:
    web.choose(ASTRONAUT)
    web.wait_until_shown()
    seam = web.tab.locator("#seam")
    seam.focus()
    web.tab.keyboard.press("Home")
    assert seam.get_attribute("aria-valuetext") == "0 % before, 100 % in colour"
    for _ in range(10):
        web.tab.keyboard.press("ArrowRight")
    assert seam.get_attribute("aria-valuetext") == "10 % before, 90 % in colour"
    box = web.tab.locator("#frame").bounding_box()
    assert box
    web.tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    web.tab.mouse.down()
    web.tab.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 60)
    web.tab.mouse.up()
    assert seam.get_attribute("aria-valuetext") == "80 % before, 20 % in colour"


LAYERS = """() => ['#before img', '#after img'].map(selector => {
  const { x, y, width } = document.querySelector(selector).getBoundingClientRect();
  return [x, y, width].map(Math.round);
})"""


def test_zoom_to_full_size_and_pan_in_step(web: WebPage, scans: dict[str, Path]) -> None:
    web.choose(scans["large"])
    web.wait_until_shown()
    web.tab.click("[data-zoom=full]")
    assert web.tab.locator("#zoom-level").inner_text() == "100 %"
    before, after = web.tab.evaluate(LAYERS)
    assert before == after
    assert after[2] == 4000
    box = web.tab.locator("#frame").bounding_box()
    assert box
    web.tab.mouse.move(box["x"] + 40, box["y"] + 200)
    web.tab.mouse.down()
    web.tab.mouse.move(box["x"] + 140, box["y"] + 260)
    web.tab.mouse.up()
    moved, with_it = web.tab.evaluate(LAYERS)
    assert moved == with_it
    assert [moved[0] - before[0], moved[1] - before[1]] == [100, 60]
    web.tab.locator("#frame").focus()
    web.tab.keyboard.press("ArrowRight")
    assert web.tab.evaluate(LAYERS)[0][0] == moved[0] - 60
    web.check()
    web.take_screenshot("zoomed")
    web.tab.keyboard.press("0")
    assert web.tab.evaluate(LAYERS)[0][2] < 1000


def test_progress_in_words_and_cancel(web: WebPage, scans: dict[str, Path]) -> None:
    network = web.tab.context.new_cdp_session(web.tab)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 30_000}
    network.send("Network.emulateNetworkConditions", slow)
    web.choose(scans["large"])
    web.tab.wait_for_selector("#progress:text-matches('sending [1-9]')")
    web.tab.wait_for_selector("#frame.alone")
    web.check()
    web.take_screenshot("sending")
    web.tab.click("#cancel")
    assert web.tab.locator("#title").inner_text() == "Cancelled"
    network.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
    web.tab.click("#again")
    web.wait_until_done()
    web.wait_until_shown()


def test_drop_paste_and_samples(web: WebPage) -> None:
    transfer = """async (name) => {
      const bytes = await (await fetch('page/samples/cat.jpg')).arrayBuffer();
      const transfer = new DataTransfer();
      transfer.items.add(new File([bytes], name, { type: 'image/jpeg' }));
      return transfer;
    }"""
    dropped = web.tab.evaluate_handle(transfer, "dropped.jpg")
    web.tab.dispatch_event("#stage", "drop", {"dataTransfer": dropped})
    web.wait_until_done()
    pasted = web.tab.evaluate_handle(transfer, "pasted.jpg")
    web.tab.evaluate(
        "data => dispatchEvent(new ClipboardEvent('paste', { clipboardData: data }))", pasted
    )
    web.wait_until_done("2 of 2 done")
    web.tab.click("#clear")
    web.tab.click("[data-sample='portrait.jpg']")
    web.wait_until_done()
    web.wait_until_shown()


def test_folder_takes_photographs_alone(web: WebPage, scans: dict[str, Path]) -> None:
    folder = scans["scan"].parent
    (folder / "notes.txt").write_text("no photograph")
    web.tab.set_input_files("#folder", folder)
    web.wait_until_done("3 of 4 done, 1 failed, 1 other file left out")


def test_focus_moves_to_the_result_or_the_error(web: WebPage, scans: dict[str, Path]) -> None:
    focused = "document.activeElement.id"
    web.tab.click("[data-sample='cat.jpg']")
    web.wait_until_shown()
    web.tab.wait_for_function(f"() => {focused} === 'frame'")
    web.tab.click("#more [data-choose=files]", no_wait_after=True)
    web.choose(scans["broken"])
    web.tab.wait_for_function(f"() => {focused} === 'alarm'")


def test_key_is_asked_for_and_kept_if_wanted(
    browser: Browser, triton: EmbeddedTriton, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("open-sesame\n")
    with run_app(triton.url, api_keys_file=keys) as url:
        context = browser.new_context(viewport=DESKTOP)
        web = WebPage(context, url)
        web.choose(ASTRONAUT)
        web.tab.wait_for_selector("#alarm:not([hidden])")
        web.tab.wait_for_function("() => document.activeElement.id === 'key'")
        assert "Your key" in web.tab.inner_text("#alarm")
        web.check()
        web.take_screenshot("key")
        web.tab.fill("#key", "open-sesame")
        web.tab.check("#keep")
        web.wait_until_done()
        web.wait_until_shown()
        web.tab.reload()
        assert web.tab.input_value("#key") == "open-sesame"
        web.tab.evaluate("document.querySelector('#access').open = true")
        web.tab.uncheck("#keep")
        web.tab.reload()
        assert web.tab.input_value("#key") == ""
        assert web.errors == []
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_both_themes_and_sizes(
    browser: Browser, url: str, scheme: Literal["light", "dark"], size: ViewportSize
) -> None:
    name = f"{'phone' if size is PHONE else 'desktop'}-{scheme}"
    context = browser.new_context(viewport=size, color_scheme=scheme, has_touch=size is PHONE)
    web = WebPage(context, url)
    web.check()
    web.take_screenshot(f"start-{name}")
    web.choose(ASTRONAUT, COFFEE)
    web.wait_until_done("2 of 2 done")
    web.wait_until_shown()
    web.check()
    web.take_screenshot(f"result-{name}")
    if size is PHONE:
        box = web.tab.locator("#frame").bounding_box()
        assert box
        web.tab.touchscreen.tap(box["x"] + box["width"] * 0.25, box["y"] + box["height"] / 2)
        assert web.tab.input_value("#seam") == "25"
    context.close()


def test_form_without_javascript(browser: Browser, url: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(url)
    assert not tab.locator("#app").is_visible()
    tab.set_input_files("form.plain [name=image]", ASTRONAUT)
    tab.select_option("form.plain [name=format]", "png")
    with tab.expect_response("**/v1/colorize") as waiting:
        tab.click("form.plain button")
    assert waiting.value.status == 200
    assert waiting.value.headers["content-type"] == "image/png"
    context.close()


def test_description_of_the_api(browser: Browser, url: str) -> None:
    context = browser.new_context()
    tab = context.new_page()
    errors: list[str] = []
    tab.on(
        "console", lambda message: errors.append(message.text) if message.type == "error" else None
    )
    tab.goto(f"{url}/docs")
    tab.wait_for_selector("button.authorize")
    assert tab.locator(".opblock").count() >= 4
    assert errors == []
    context.close()


@pytest.mark.parametrize("path", ["/", "/docs", "/page/docs.html"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_html_answers_protect_their_readers(url: str, path: str, method: str) -> None:
    answer = httpx.request(method, url + path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "style=" not in answer.text
    assert "<script>" not in answer.text
