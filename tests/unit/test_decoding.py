"""Photographs as scanners, phones and archives store them: their tones are read correctly."""

import io
import struct
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image
from tones import (
    DEEP,
    EXPECTED,
    GRAY,
    LIMITS,
    ROWS,
    assert_reads,
    read,
    save,
    write_png,
    write_tiff,
)

from rehue_serve import images
from rehue_serve.decoding.gif import count_frames
from rehue_serve.encoding.pictures import encode_pictures
from rehue_serve.errors import InvalidImage, RehueError


def test_a_phones_jpeg_with_a_second_picture_is_a_jpeg() -> None:
    first, second = Image.fromarray(GRAY).convert("RGB"), Image.new("RGB", (20, 20))
    data = save(first, "MPO", save_all=True, append_images=[second], quality=95)
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert_reads(data)
    assert images.open_image(data, **LIMITS).header.format == "jpeg"


OPAQUE_HALF = np.where(ROWS < 30, 255, 128).astype(np.uint8)


@pytest.mark.parametrize(
    "data",
    [
        save(Image.fromarray(np.dstack([GRAY] * 3 + [OPAQUE_HALF])), "PNG"),
        save(Image.fromarray(np.dstack([GRAY] * 3 + [OPAQUE_HALF])), "WEBP", lossless=True),
        save(Image.fromarray(np.dstack([GRAY, OPAQUE_HALF]), "LA"), "TIFF"),
    ],
    ids=["PNG", "WebP", "TIFF"],
)
def test_alpha_is_kept_where_the_answer_can_hold_it(data: bytes) -> None:
    photograph = images.open_image(data, **LIMITS)
    lightness, alpha = images.decode_page(photograph, keep_alpha=True)
    assert np.abs(lightness / 655.35 - EXPECTED).mean() < 0.1
    assert alpha is not None
    assert np.array_equal(alpha, OPAQUE_HALF)
    rgba = np.dstack([GRAY, GRAY, GRAY, alpha])
    for format in ("png", "webp", "tiff"):
        answer = Image.open(io.BytesIO(encode_pictures([rgba], format, 100)))
        assert np.array_equal(np.asarray(answer.getchannel("A")), OPAQUE_HALF)
        assert np.abs(np.asarray(answer.convert("RGB")).astype(int) - rgba[..., :3]).mean() < 2


def test_alpha_of_sixteen_bits_keeps_its_depth() -> None:
    deep = np.dstack([DEEP] * 3 + [OPAQUE_HALF.astype(np.uint16) * 257])
    data = write_tiff(deep, photometric="rgb", extrasamples=[2])
    _, alpha = images.decode_page(images.open_image(data, **LIMITS), keep_alpha=True)
    assert alpha is not None
    assert np.array_equal(alpha, deep[..., 3])
    for format in ("png", "tiff"):
        again = images.open_image(encode_pictures([deep], format, 92), **LIMITS)
        found = images.decode_page(again, keep_alpha=True)[1]
        assert found is not None
        assert np.array_equal(found, deep[..., 3])


def test_one_color_that_means_transparent() -> None:
    keyed = np.stack([GRAY] * 3, -1)
    keyed[20:40, 20:40] = (1, 2, 3)
    expected = EXPECTED.copy()
    expected[20:40, 20:40] = 100
    assert_reads(write_png(keyed, 2, 8, tRNS=struct.pack(">3H", 1, 2, 3)), expected)


def test_a_jpeg_that_lacks_only_its_end_mark() -> None:
    data = save(Image.fromarray(GRAY), "JPEG", quality=95)
    assert_reads(data[:-2])
    for cut in (4, 5, 10, 100, 1000):
        with pytest.raises(InvalidImage):
            read(data[:-cut])


def test_a_progressive_jpeg_without_its_end_is_truncated() -> None:
    data = save(Image.fromarray(GRAY), "JPEG", quality=95, progressive=True)
    for cut in range(2, len(data) - 200, 97):
        with pytest.raises(RehueError):
            read(data[:-cut])


def test_truncated_deep_files_are_refused() -> None:
    for data in (write_tiff(DEEP), save(Image.fromarray(DEEP), "PNG")):
        for length in range(10, len(data) - 20, 499):
            with pytest.raises(RehueError):
                read(data[:length])


@pytest.mark.parametrize(
    ("format", "answer", "options"),
    [
        ("AVIF", "jpeg", {"quality": 95}),
        ("HEIF", "jpeg", {"quality": 95}),
        ("JPEG2000", "jpeg", {}),
        ("GIF", "png", {}),
    ],
)
def test_other_formats_are_read(format: str, answer: str, options: dict[str, Any]) -> None:
    pillow_heif.register_heif_opener()
    data = save(Image.fromarray(GRAY).convert("RGB"), format, **options)
    assert_reads(data, tolerance=1.0)
    assert images.open_image(data, **LIMITS).header.format == answer


def test_frames_of_a_gif_are_counted_up_to_a_limit() -> None:
    frames = [Image.new("L", (2, 2), number % 255) for number in range(1200)]
    data = save(frames[0], "GIF", save_all=True, append_images=frames[1:40])
    assert images.open_image(data, **LIMITS).header.frames == 40
    data = save(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert images.open_image(data, **LIMITS).header.frames == 1000
    for length in range(10, 200):
        assert count_frames(data[:length]) >= 1


def test_first_frame_of_an_animation_is_read_and_reported() -> None:
    second = Image.fromarray(255 - GRAY)
    data = save(Image.fromarray(GRAY), "GIF", save_all=True, append_images=[second])
    assert_reads(data)
    assert images.open_image(data, **LIMITS).header.frames == 2
