"""Encoded photographs: what is read, what is refused and with which messages."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_images import BAD_IMAGES, encode_image
from icc import ADOBE_RGB
from numpy.typing import NDArray
from paths import PHOTOS, ROOT
from PIL import Image, ImageOps

from loadtest.large import measure_in_processes, write_scan
from rehue_core import lab
from rehue_serve import images
from rehue_serve.encoding.pictures import encode_pictures
from rehue_serve.errors import ImageTooLarge, RehueError

LIMITS = {"max_bytes": 10_000_000, "max_pixels": 50_000_000}


def read_lightness(data: bytes, **limits: int) -> NDArray[Any]:
    """Lightness as the server reads it, in counts of 100 / 65535."""
    return images.decode_lightness(images.open_image(data, **(LIMITS | limits)))


def compute_lightness(picture: Image.Image | NDArray[Any]) -> NDArray[Any]:
    return lab.compute_fine_lightness(np.asarray(picture)).astype(int)


@pytest.fixture
def astronaut() -> Image.Image:
    return Image.open(PHOTOS / "skimage_astronaut.jpg")


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_lossless_formats_give_the_same_pixels(astronaut: Image.Image, format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    # TIFF goes another way, which rounds at another place: 10 counts are 0.015 of L.
    got = read_lightness(encode_image(astronaut, format, **options)).astype(int)
    assert np.abs(got - compute_lightness(astronaut)).max() <= 10


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_orientation_is_applied(astronaut: Image.Image, orientation: int, mode: str) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    picture = astronaut.convert(mode).crop((0, 0, 200, 120))
    data = encode_image(picture, "PNG", exif=tags)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(read_lightness(data), compute_lightness(expected))


def test_sixteen_bits_are_kept() -> None:
    deep = np.array([[0, 257 * 100, 257 * 100 + 50, 65535]], np.uint16)
    got = read_lightness(encode_image(Image.fromarray(deep), "PNG"))[0]
    assert (
        np.abs(
            got[[0, 1, 3]].astype(int) - compute_lightness(np.array([[0, 100, 255]], np.uint8))
        ).max()
        <= 2
    )
    assert got[1] < got[2]


def test_transparent_lies_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert (read_lightness(encode_image(clear, "PNG")) == 65535).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_modes_are_read(astronaut: Image.Image, mode: str) -> None:
    data = encode_image(astronaut.convert(mode), "TIFF")
    assert read_lightness(data).shape[:2] == (512, 512)


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "tiff"])
def test_what_is_encoded_is_read(astronaut: Image.Image, format: str) -> None:
    rgb = np.asarray(astronaut)
    data = encode_pictures([rgb], format, 95)
    assert Image.open(io.BytesIO(data)).format == format.upper()
    assert np.abs(read_lightness(data) - compute_lightness(rgb)).mean() < 4 * 257


def test_a_large_webp_is_encoded_quickly_and_well() -> None:
    """Less effort for more than 4 MP, still near the picture."""
    rgb = np.asarray(Image.open(PHOTOS / "skimage_coffee.jpg").resize((2400, 1800)))
    data = encode_pictures([rgb], "webp", 92)
    assert np.abs(read_lightness(data) - compute_lightness(rgb)).mean() < 2 * 257


@pytest.mark.parametrize(
    ("data", "kind", "words"), [b[1:] for b in BAD_IMAGES], ids=[b[0] for b in BAD_IMAGES]
)
def test_bad_input_is_refused_with_its_reason(
    data: bytes, kind: type[RehueError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        read_lightness(data)


def test_too_many_bytes_are_refused(photo: bytes) -> None:
    with pytest.raises(ImageTooLarge, match="the limit is 1,000"):
        read_lightness(photo, max_bytes=1000)


def test_cut_anywhere_is_never_a_fault(photo: bytes) -> None:
    for length in range(0, len(photo) - 2, 997):
        with pytest.raises(RehueError):
            read_lightness(photo[:length])


def test_memory_of_a_photograph_is_under_three_pictures() -> None:
    # In a process of its own: what other tests freed would hide part of the peak, or add to it.
    code = (
        "from loadtest.chain import colorize_with_rehue, measure_peak_memory\n"
        "from loadtest.samples import create_photograph\n"
        "colorize_with_rehue(create_photograph(64, 64))\n"  # creates the lookup tables
        "for size in ((512, 512), (1024, 1024), (4000, 3000)):\n"
        "    for gray in (False, True):\n"
        "        photo = create_photograph(*size, gray=gray)\n"
        # What runs for the first time, or beside it, adds to a peak and takes nothing off.
        "        work = lambda: colorize_with_rehue(photo)\n"
        "        least = min(measure_peak_memory(work) for _ in range(3))\n"
        "        print(least / (3 * size[0] * size[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert max(map(float, done.stdout.split())) < 3


NOISE = (
    ("L", "JPEG", "jpeg"),
    ("RGB", "WEBP", "jpeg"),
    ("RGB", "JPEG", "webp"),
    ("RGBA", "PNG", "png"),
    ("RGBA", "PNG", "webp"),
    ("CMYK", "JPEG", "jpeg"),
    ("RGB", "JPEG2000", "jpeg"),
    ("I;16", "TIFF", "tiff"),
    ("I;16", "PNG", "png"),
)
SCANS = (("deep.tif", "tiff"), ("deep.tif", "png"), ("colour.jpg", "jpeg"))
# Its answer is encoded from RGB, not from the planes of YCbCr.
AS_RGB = ("profiled.jpg", "jpeg,profile=keep,mark=visible")
NOISE_SIDE = 2100


def write_noise(path: Path, mode: str, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 65536, (NOISE_SIDE, NOISE_SIDE), np.uint16)
    picture = Image.fromarray(noise)
    if mode != "I;16":
        picture = Image.fromarray((noise >> 8).astype(np.uint8)).convert(mode)
    picture.save(path, name)


@pytest.fixture(scope="module")
def noise_figures(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, dict[str, float]]:
    """Memory of photographs of noise, by their rows in NOISE."""
    directory = tmp_path_factory.mktemp("noise")
    paths = {row[:2]: directory / "-".join(row[:2]) for row in NOISE}
    for row, path in paths.items():
        write_noise(path, *row)
    found = measure_in_processes((paths[row[:2]], row[2]) for row in NOISE)
    return dict(zip(NOISE, found, strict=True))


@pytest.mark.parametrize("row", NOISE, ids="-".join)
def test_memory_is_not_underestimated(
    noise_figures: dict[Any, dict[str, float]], row: tuple[str, str, str]
) -> None:
    found = noise_figures[row]
    # What runs for the first time needs some memory once.
    assert found["peak"] < found["estimate"] + 60_000_000
    # The most is a transparent WebP as the answer: libwebp looks for repeats in all of the alpha.
    assert found["estimate"] < 42 * NOISE_SIDE**2


@pytest.fixture(scope="module")
def scan_figures(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, dict[str, float]]:
    """Memory of large scans, by their rows in SCANS."""
    directory = tmp_path_factory.mktemp("scans")
    for file in {file for file, _ in SCANS}:
        write_scan(directory / file, 20)
    with Image.open(directory / "colour.jpg") as scan:
        scan.save(directory / AS_RGB[0], quality=92, icc_profile=ADOBE_RGB)
    rows = (*SCANS, AS_RGB)
    found = measure_in_processes((directory / file, format) for file, format in rows)
    return dict(zip(rows, found, strict=True))


@pytest.mark.parametrize("row", SCANS, ids="-".join)
def test_a_large_scan_needs_less_than_three_pictures(
    scan_figures: dict[Any, dict[str, float]], row: tuple[str, str]
) -> None:
    found = scan_figures[row]
    assert found["peak"] < 3 * found["decoded"]
    assert found["peak"] < found["estimate"]


def test_another_profile_and_a_mark_need_less_too(
    scan_figures: dict[Any, dict[str, float]],
) -> None:
    found = scan_figures[AS_RGB]
    assert found["peak"] < 3 * found["decoded"]
