"""The editor of colours in a browser, with the real network in this process."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scripted_triton
from browser import WebPage, launch_chromium, run_app
from paths import MODELS, PHOTOS
from PIL import Image
from playwright.sync_api import Browser
from skimage.color import deltaE_ciede2000, rgb2lab

COFFEE = PHOTOS / "skimage_coffee.jpg"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launch_chromium() as running:
        yield running


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    network = scripted_triton.load_network(MODELS / "rehue" / "1" / "model.onnx")
    with scripted_triton.serve(network) as triton, run_app(triton.url) as address:
        yield address


@pytest.fixture
def web(browser: Browser, url: str) -> Iterator[WebPage]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = WebPage(context, url)
    page.choose(COFFEE)
    page.wait_until_done()
    page.tab.click("#edit")
    page.tab.wait_for_selector("#editor[data-versions]")
    yield page
    assert page.errors == []
    context.close()


def wait_for_preview(web: WebPage) -> float:
    """Return the milliseconds that the newest picture took."""
    web.tab.wait_for_selector("#editor[data-milliseconds]")
    taken = web.tab.get_attribute("#editor", "data-milliseconds")
    web.tab.evaluate("() => delete document.querySelector('#editor').dataset.milliseconds")
    return float(taken or "nan")


def read_preview(web: WebPage) -> Any:
    """Return the pixels of the picture that the editor shows, as 60 x 40 RGBA."""
    pixels = web.tab.evaluate(
        "() => { const canvas = new OffscreenCanvas(60, 40), context = canvas.getContext('2d');"
        " context.drawImage(document.querySelector('#editor .picture img'), 0, 0, 60, 40);"
        " return [...context.getImageData(0, 0, 60, 40).data]; }"
    )
    return np.array(pixels, np.float32).reshape(40, 60, 4)


def put_color(web: WebPage, color: str) -> None:
    web.tab.locator("#editor [data-color]").evaluate(
        "(input, color) => { input.value = color;"
        " input.dispatchEvent(new Event('change', {bubbles: true})); }",
        color,
    )


def test_places_are_coloured_undone_saved_and_used(web: WebPage, tmp_path: Path) -> None:
    tab = web.tab
    wait_for_preview(web)
    tab.click("#editor .picture img", position={"x": 300, "y": 80})
    assert tab.locator("#editor .swatch").count() >= 3
    put_color(web, "#1f5a2b")
    tab.wait_for_load_state("networkidle")
    durations = []
    wait_for_preview(web)
    for warmth in (0.1, 0.2, 0.0):
        tab.locator("#editor [data-value=warmth]").evaluate(
            "(slider, value) => { slider.value = value;"
            " slider.dispatchEvent(new Event('change', {bubbles: true})); }",
            warmth,
        )
        durations.append(wait_for_preview(web))
    print(f"an edit at screen size: {durations} ms")
    web.check()
    web.take_screenshot("editor")
    tab.click("#editor [data-do=undo]")
    tab.click("#editor [data-do=undo]")
    tab.click("#editor [data-do=undo]")
    tab.click("#editor [data-do=undo]")
    assert tab.locator("#editor .dot").get_attribute("aria-label") != "Place 1, #1f5a2b"
    tab.click("#editor [data-do=redo]")
    assert tab.locator("#editor .dot").get_attribute("aria-label") == "Place 1, #1f5a2b"
    with tab.expect_download() as waiting:
        tab.click("#editor [data-do=save]")
    saved = Path(waiting.value.path())
    document = json.loads(saved.read_text())
    (hint,) = document["hints"]
    assert document["version"] == 1
    assert hint["color"] == "#1f5a2b"
    edits = tmp_path / "edits.json"
    edits.write_bytes(saved.read_bytes())
    tab.click("#editor [data-do=clear]")
    assert tab.locator("#editor .dot").count() == 0
    tab.set_input_files("#editor [data-file=edits]", edits)
    tab.wait_for_selector("#editor .dot")
    tab.click("#editor [data-do=use]")
    web.wait_until_done()
    with tab.expect_download() as waiting:
        tab.click("#download")
    picture = Image.open(io.BytesIO(Path(waiting.value.path()).read_bytes()))
    assert picture.size == Image.open(COFFEE).size
    pixels = np.asarray(picture)
    y, x = int(hint["y"] * pixels.shape[0]), int(hint["x"] * pixels.shape[1])
    found = rgb2lab(pixels[y - 1 : y + 2, x - 1 : x + 2] / 255.0).mean(axis=(0, 1))
    wanted = rgb2lab(np.array([[[0x1F, 0x5A, 0x2B]]]) / 255.0)[0, 0]
    assert deltaE_ciede2000(found, np.array([found[0], *wanted[1:]])) < 3
    web.check()
    web.take_screenshot("edited")


def test_keyboard_alone_puts_a_colour(web: WebPage) -> None:
    tab = web.tab
    tab.focus("#editor .picture")
    for key in ("Shift+ArrowUp", "Shift+ArrowUp", "ArrowLeft", "Enter"):
        tab.keyboard.press(key)
    dot = tab.locator("#editor .dot")
    assert dot.count() == 1
    assert "top: 30%" in (dot.get_attribute("style") or "")
    # The likely colours have the focus; Enter chooses one.
    tab.keyboard.press("Tab")
    chosen = tab.evaluate("() => document.activeElement.dataset.swatch")
    tab.keyboard.press("Enter")
    assert dot.get_attribute("aria-label") == f"Place 1, {chosen}"
    web.check()
    tab.keyboard.press("Escape")
    assert not tab.locator("#editor").is_visible()
    assert len(web.uploads) > 1


def test_colours_of_another_picture(web: WebPage, tmp_path: Path) -> None:
    tab = web.tab
    reference = "#editor [data-file=reference]"
    wait_for_preview(web)
    before = read_preview(web)
    tab.set_input_files(reference, PHOTOS / "sklearn_flower.jpg")
    tab.wait_for_selector("#editor .palette .swatch")
    assert tab.locator("#editor .palette .swatch").count() >= 4
    wait_for_preview(web)
    after = read_preview(web)
    assert np.abs(after - before).mean() > 2
    web.check()
    web.take_screenshot("editor-palette")
    with tab.expect_download() as waiting:
        tab.click("#editor [data-do=save]")
    palette = json.loads(Path(waiting.value.path()).read_text())["palette"]
    assert tab.locator("#editor .palette .swatches").get_attribute("aria-label") == (
        f"Palette: {', '.join(palette)}"
    )
    tab.click("#editor [data-do=forget]")
    wait_for_preview(web)
    assert np.array_equal(read_preview(web), before)
    assert not tab.locator("#editor .palette .swatch").count()
    wrong = tmp_path / "wrong.png"
    Image.new("L", (64, 64), 90).save(wrong)
    tab.set_input_files(reference, wrong)
    tab.wait_for_function("() => document.querySelector('#editor .trouble').textContent")
    trouble = tab.locator("#editor .trouble").inner_text()
    assert trouble == "This did not work: reference: the picture has no colours."


def test_fingers_put_a_colour(browser: Browser, url: str) -> None:
    """On a telephone: no mouse, no keyboard."""
    context = browser.new_context(
        viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True
    )
    web = WebPage(context, url)
    tab = web.tab
    web.choose(COFFEE)
    web.wait_until_done()
    tab.tap("#edit")
    tab.wait_for_selector("#editor[data-versions]")
    wait_for_preview(web)
    box = tab.locator("#editor .picture img").bounding_box()
    assert box is not None
    tab.touchscreen.tap(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
    dot = tab.locator("#editor .dot")
    assert dot.count() == 1
    style = dot.get_attribute("style") or ""
    left, top = (float(part.split(":")[1].rstrip("%; ")) for part in style.split(";")[:2])
    assert abs(left - 25) < 1.5
    assert abs(top - 50) < 1.5
    swatch = tab.locator("#editor .place .swatch").nth(2)
    color = swatch.get_attribute("data-swatch")
    swatch.tap()
    assert dot.get_attribute("aria-label") == f"Place 1, {color}"
    slider = tab.locator("#editor [data-value=warmth]")
    slider.scroll_into_view_if_needed()
    side = slider.bounding_box()
    assert side is not None
    tab.touchscreen.tap(side["x"] + 0.75 * side["width"], side["y"] + side["height"] / 2)
    assert 0.3 < float(slider.input_value()) < 0.7
    wait_for_preview(web)
    web.check()
    web.take_screenshot("editor-touch")
    tab.tap("#editor [data-do=undo]")
    assert slider.input_value() == "0"
    tab.tap("#editor [data-do=use]")
    web.wait_until_done()
    assert web.errors == []
    context.close()


def test_versions_and_wrong_files(web: WebPage, tmp_path: Path) -> None:
    tab = web.tab
    tab.click("#editor .versions button:has-text('warmer')")
    assert tab.locator("#editor [data-value=warmth]").input_value() == "0.35"
    tab.click("#editor [data-do=propose]")
    tab.click("#editor .versions button:has-text('from farther')")
    with tab.expect_download() as download:
        tab.click("#editor [data-do=save]")
    saved = tmp_path / "saved.json"
    download.value.save_as(saved)
    assert json.loads(saved.read_text()) == {"version": 1, "look": "farther"}
    assert tab.locator("#editor [data-value=warmth]").input_value() == "0"
    tab.click("#editor [data-do=undo]")
    wrong = tmp_path / "wrong.json"
    wrong.write_text("no edits")
    tab.set_input_files("#editor [data-file=edits]", wrong)
    tab.wait_for_function("() => document.querySelector('#editor .trouble').textContent")
    assert tab.locator("#editor .trouble").inner_text() == (
        "This file has no saved edits: the file is not JSON."
    )
    assert tab.locator("#editor [data-value=warmth]").input_value() == "0.35"
    tab.set_viewport_size({"width": 320, "height": 640})
    web.check()
    web.take_screenshot("editor-phone")
