"""A person's edits of an ab field: warmth, tint, hints and palettes."""

import json
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from paths import PHOTOS
from skimage.color import deltaE_ciede2000, rgb2lab

from rehue_core import lab, palette
from rehue_core.candidates import VISIBLE, choose_candidates
from rehue_core.colorize import Box, ModelSpec, compose_rgb
from rehue_core.edits import Edits, Hint, apply_edits, format_palette
from rehue_core.rgb import convert_to_rgb

SPEC = ModelSpec(
    "any", 256, 256, 128, 128, np.dtype(np.uint8), np.dtype(np.float16), 100 / 255, 1.0, 1
)


@pytest.fixture(scope="module")
def coffee() -> lab.UInt8:
    """A photograph in colour, HW3."""
    return np.ascontiguousarray(cv2.imread(str(PHOTOS / "skimage_coffee.jpg"))[..., ::-1])


@pytest.fixture(scope="module")
def lightness(coffee: lab.UInt8) -> Any:
    return lab.compute_fine_lightness(coffee)


@pytest.fixture(scope="module")
def ab(coffee: lab.UInt8) -> lab.Float32:
    """A plausible answer of a network: the photograph's own colours, pale and coarse."""
    small = cv2.resize(coffee, (128, 85), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(lab.convert_to_lab(small)[..., 1:] * 0.5)


def read_ab(picture: Any, hint: Hint) -> Any:
    """Return Lab of the pixel at a hint's place."""
    height, width = picture.shape[:2]
    y, x = min(int(hint.y * height), height - 1), min(int(hint.x * width), width - 1)
    return rgb2lab(picture[y : y + 1, x : x + 1])[0, 0]


def test_colours_convert_as_in_scikit_image(coffee: lab.UInt8) -> None:
    assert np.abs(lab.convert_to_lab(coffee[::7, ::7]) - rgb2lab(coffee[::7, ::7])).max() < 1e-3


@pytest.mark.parametrize("size", [(400, 600), (3000, 4500), (60, 90), (1, 1), (2, 900)])
def test_hint_has_its_colour_at_its_place(size: tuple[int, int], coffee: lab.UInt8) -> None:
    """At full resolution, at corners, and with a hundred hints; the lightness is the photo's."""
    height, width = size
    gray = cv2.resize(coffee, (width, height), interpolation=cv2.INTER_AREA)[..., 1]
    lightness = lab.compute_fine_lightness(gray)
    chance = np.random.default_rng(0)
    places = [(0.0, 0.0), (1.0, 1.0), (0.5, 0.5), *chance.uniform(size=(97, 2)).tolist()]
    colors = ["gray", "#8a7f6a", "#6a7f8a", "#7f6a8a"]
    hints = tuple(Hint(x, y, colors[index % 4]) for index, (x, y) in enumerate(places))
    edits = Edits(hints=hints if min(size) > 50 else hints[:1])
    field = apply_edits(np.full((60, 90, 2), 12, np.float32), lightness, edits)
    picture = convert_to_rgb(lightness, field, dtype=np.uint16)
    apart: list[Hint] = []
    for hint in reversed(edits.hints):  # of those in one cell the last one counts
        near = [other for other in apart if np.hypot(hint.x - other.x, hint.y - other.y) < 0.05]
        if near:
            continue
        apart.append(hint)
        found = read_ab(picture, hint)
        wanted = np.zeros(3) if hint.color == "gray" else read_color(hint.color)
        wanted[0] = found[0]
        if 20 < wanted[0] < 90:  # other lightnesses cannot have every colour in sRGB
            assert deltaE_ciede2000(found, wanted) < 2, hint
    assert len(apart) > (10 if min(size) > 50 else 0)


def read_color(color: str) -> Any:
    return rgb2lab(np.array([[list(bytes.fromhex(color[1:]))]], np.uint8))[0, 0]


def test_without_edits_the_answer_is_the_automatic_one(ab: lab.Float32, lightness: Any) -> None:
    output = np.zeros((2, 128, 128), np.float16)
    output[:, :85] = np.moveaxis(ab, -1, 0)
    box = Box(0, 0, 170, 256)
    automatic = compose_rgb(lightness, output, box, SPEC, 0.9)
    for none in (Edits(), Edits(palette=("#ff0000",), palette_strength=0)):
        assert np.array_equal(compose_rgb(lightness, output, box, SPEC, 0.9, edits=none), automatic)
    warm = compose_rgb(lightness, output, box, SPEC, 0.9, edits=Edits(warmth=0.1))
    assert not np.array_equal(warm, automatic)


def test_hint_does_not_bleed_over_a_strong_edge() -> None:
    """Beyond an edge and beyond a thin line, though the lightness there is the same."""
    lightness = np.full((300, 400), 60, np.float32)
    lightness[:, 200:] = 25  # an edge
    lightness[150:154] = 5  # a line
    field = apply_edits(
        np.zeros((96, 128, 2), np.float32), lightness, Edits(hints=(Hint(0.4, 0.25, "#d02020"),))
    )
    chroma = np.linalg.norm(lab.resize(field, lightness.shape), axis=-1)
    own = chroma[75, 160]
    assert own > 60
    assert chroma[20:140, 20:195].min() > 0.5 * own  # its own region follows
    assert chroma[:140, 204:].max() < 0.1 * own
    assert chroma[160:, :195].max() < 0.1 * own


def test_gray_hint_keeps_a_region_gray(ab: lab.Float32, lightness: Any) -> None:
    hint = Hint(0.9, 0.9, "gray")
    field = apply_edits(ab, lightness, Edits(hints=(hint,)))
    before = np.linalg.norm(ab, axis=-1)[75:, 110:].mean()
    after = np.linalg.norm(lab.resize(field, ab.shape), axis=-1)[75:, 110:].mean()
    assert after < 0.5 * before


@pytest.mark.parametrize(
    ("edits", "channel", "sign"),
    [
        (Edits(warmth=0.5), 1, 1),
        (Edits(warmth=-0.5), 1, -1),
        (Edits(tint=0.5), 0, 1),
        (Edits(tint=-0.5), 0, -1),
    ],
    ids=["warmer", "cooler", "magenta", "green"],
)
def test_balance_moves_all_colours(
    ab: lab.Float32, lightness: Any, edits: Edits, channel: int, sign: int
) -> None:
    change = apply_edits(ab, lightness, edits) - ab
    assert (sign * change[..., channel]).min() > 0
    assert 3 < sign * change[..., channel].mean() < 25


def test_warmth_of_one_half_is_the_step_from_d65_to_d50() -> None:
    """White under D50, seen by an observer who is used to D65: x and y by CIE 15."""
    white = apply_edits(np.zeros((1, 1, 2), np.float32), np.full((1, 1), 100.0, np.float32),
                        Edits(warmth=0.5))  # fmt: skip
    fx, fz = np.cbrt(0.96422 / 0.95047), np.cbrt(0.82521 / 1.08883)
    np.testing.assert_allclose(white[0, 0], [500 * (fx - 1), 200 * (1 - fz)], atol=1e-2)


def test_palette_of_a_picture_holds_its_main_colours() -> None:
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[:20], picture[20:30], picture[30:] = (200, 30, 30), (30, 60, 200), (240, 240, 230)
    found = palette.extract_palette(picture)
    assert set(format_palette(found)) == {"#c81e1e", "#1e3cc8", "#f0f0e6"}
    assert format_palette(found)[0] == "#c81e1e"  # the most frequent
    assert np.array_equal(found, palette.extract_palette(picture))


def test_palette_is_taken_over_where_it_fits(ab: lab.Float32, lightness: Any) -> None:
    """The photograph's true colours bring a pale prediction nearer to the truth."""
    small = lab.resize(lightness, ab.shape)
    truth = ab * 2
    colors = format_palette(
        palette.extract_palette(convert_to_rgb(small, np.ascontiguousarray(truth)))
    )
    distances = [
        np.linalg.norm(
            apply_edits(ab, lightness, Edits(palette=colors, palette_strength=strength)) - truth,
            axis=-1,
        ).mean()
        for strength in (0.0, 0.5, 1.0)
    ]
    assert distances[2] < distances[1] < distances[0]
    assert distances[2] < 0.7 * distances[0]


def test_candidates_differ_visibly(ab: lab.Float32, lightness: Any) -> None:
    found = choose_candidates({"whole": ab}, lightness, 1.0, Edits())
    assert [candidate.name for candidate in found] == [
        "as is", "warmer", "cooler", "paler", "more vivid",
    ]  # fmt: skip
    assert found[0].edits == Edits()
    assert found[0].strength == 1
    fields = [apply_edits(ab * c.strength, lightness, c.edits) for c in found]
    for index, field in enumerate(fields):
        for other in fields[:index]:
            assert np.linalg.norm(field - other, axis=-1).mean() >= VISIBLE
    # Without any colour there is nothing to make paler or more vivid.
    names = [c.name for c in choose_candidates({"whole": ab * 0}, lightness, 1.0, Edits())]
    assert names == ["as is", "warmer", "cooler"]
    already = [c.name for c in choose_candidates({"whole": ab}, lightness, 1.0, Edits(warmth=1))]
    assert "warmer" not in already
    assert "cooler" in already


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"warmth": 1.01}, "warmth is 1.01; it must be from -1 to 1"),
        ({"tint": float("nan")}, "tint is nan"),
        ({"palette_strength": -0.1}, "palette_strength is -0.1; it must be from 0 to 1"),
        ({"hints": (Hint(1.2, 0, "gray"),)}, "hints[0].x is 1.2"),
        ({"hints": (Hint(0, float("nan"), "gray"),)}, "hints[0].y is nan"),
        ({"hints": (Hint(0, 0, "gray"), Hint(0, 0, "red"))}, "hints[1].color is 'red'"),
        ({"hints": (Hint(0, 0, "#12345"),)}, "hints[0].color"),
        ({"hints": (Hint(0, 0, "gray"),) * 101}, "hints has 101 points; at most 100 are allowed"),
        ({"palette": ("#12345g",)}, "palette has '#12345g'"),
        ({"palette": ("#123456",) * 17}, "palette has 17 colours; at most 16 are allowed"),
    ],
)
def test_nonsense_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^") as caught:
        Edits(**values)
    assert str(caught.value).startswith(message)


def test_document_and_digest_depend_on_what_is_changed_alone() -> None:
    edits = Edits(warmth=0.3, hints=(Hint(0.4, 0.6, "#7A1F2B"), Hint(1, 0, "gray")))
    document = edits.to_document(1.0)
    assert json.loads(json.dumps(document)) == {
        "version": 1,
        "warmth": 0.3,
        "hints": [{"x": 0.4, "y": 0.6, "color": "#7a1f2b"}, {"x": 1, "y": 0, "color": "gray"}],
    }
    # A proto's float is not quite JSON's number.
    same = replace(edits, warmth=float(np.float32(0.3)))
    assert same.compute_digest(float(np.float32(0.8))) == edits.compute_digest(0.8)
    assert replace(edits, tint=0.1).compute_digest(0.8) != edits.compute_digest(0.8)
    assert Edits() == Edits(warmth=-0.0)
    assert not Edits()
    assert edits
