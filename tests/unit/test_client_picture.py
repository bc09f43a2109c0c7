"""What can be done with a `Picture`."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rehue_client import Picture, Timings

PIXELS = np.random.default_rng(3).integers(0, 255, (5, 7, 3), np.uint8)


def create_picture(format: str) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format, **{"lossless": True} if format == "webp" else {})
    return Picture(
        data=buffer.getvalue(), media_type=f"image/{format}", model="rehue/1", request_id="r-1",
        timings=Timings(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("format", "suffix"),
    [("jpeg", ".jpg"), ("jpeg", ".JFIF"), ("png", ".png"), ("webp", ".webp"), ("tiff", ".TIF"),
     ("png", ".other"), ("png", "")],
)  # fmt: skip
def test_picture_is_saved_under_a_suffix_of_its_format(
    tmp_path: Path, format: str, suffix: str
) -> None:
    picture = create_picture(format)
    path = picture.save(tmp_path / "new" / f"x{suffix}")
    assert path.read_bytes() == picture.data
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("format", "suffix"), [("jpeg", ".png"), ("png", ".jpe"), ("webp", ".tiff")]
)
def test_suffix_of_another_format_is_refused(tmp_path: Path, format: str, suffix: str) -> None:
    with pytest.raises(ValueError, match=f"would contain a {format.upper()} image"):
        create_picture(format).save(tmp_path / f"x{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["png", "webp", "tiff", "jpeg"])
def test_picture_is_decoded(format: str) -> None:
    picture = create_picture(format)
    array = picture.array()
    assert (array.dtype, array.shape) == (np.dtype("uint8"), (5, 7, 3))
    if format != "jpeg":
        np.testing.assert_array_equal(array, PIXELS)
    assert picture.image().size == (7, 5)


def test_picture_shows_itself_in_a_notebook() -> None:
    shown = {}
    for format in ("png", "jpeg", "webp", "tiff"):
        picture = create_picture(format)
        representations = (picture._repr_png_(), picture._repr_jpeg_(), picture._repr_html_())
        shown[format] = [bool(representation) for representation in representations]
    assert shown == {
        "png": [True, False, False],
        "jpeg": [False, True, False],
        "webp": [False, False, True],
        "tiff": [False, False, False],
    }
