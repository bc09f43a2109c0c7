"""Colorize one encoded photograph: decode, infer, encode.

Codecs and Lab run in threads (OpenCV, Pillow and Numba release the GIL), so that the
event loop stays free for other requests.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from rehue_core import colorize, lab, ycbcr
from rehue_core.colorize import ModelSpec
from rehue_core.ycbcr import Planes
from rehue_serve import images, metrics, tracing
from rehue_serve.admission import Admission
from rehue_serve.errors import InvalidParameter, UnknownModel
from rehue_serve.memory import MemoryBudget
from rehue_serve.metadata.answer import build_metadata
from rehue_serve.settings import Settings
from rehue_serve.triton import TritonClient

T = TypeVar("T")
Compose = Callable[[], NDArray[Any] | Planes]

MAX_MODEL_NAME = 255  # characters; it is the name of a folder
METADATA = ("keep", "none")
FORMATS = ("auto", *images.MEDIA_TYPES)
STAGES = ("decode", "prepare", "infer", "color", "encode")
DEFAULT_QUALITY = 92  # of JPEG and WebP; no visible loss, a third of the bytes of 100


@dataclass(frozen=True)
class Parameters:
    """A caller's choices; raises InvalidParameter or UnknownModel for wrong values."""

    model: str = ""
    strength: float = 1.0
    format: str = "auto"
    quality: int = DEFAULT_QUALITY
    metadata: str = "keep"

    def __post_init__(self) -> None:
        if len(self.model) > MAX_MODEL_NAME:
            raise UnknownModel("There is no model of so long a name; see /v1/models.")
        if not 0 <= self.strength <= 2:  # also refuses NaN
            raise InvalidParameter(f"strength is {self.strength}; it must be from 0 to 2.")
        if self.format not in FORMATS:
            raise InvalidParameter(
                f"format is {self.format!r}; it must be one of {', '.join(FORMATS)}."
            )
        if not 1 <= self.quality <= 100:
            raise InvalidParameter(f"quality is {self.quality}; it must be from 1 to 100.")
        if self.metadata not in METADATA:
            raise InvalidParameter(
                f"metadata is {self.metadata!r}; it must be one of {', '.join(METADATA)}."
            )


@dataclass(frozen=True)
class Colorized:
    """An encoded picture in colour."""

    data: bytes
    media_type: str
    model: str  # name/version
    timings: dict[str, float]  # ms, by stage
    pages: int = 1  # in the answer
    frames: int = 1  # in the photograph's file


class Pipeline:
    """Colorizes photographs with the models of one Triton client."""

    def __init__(self, settings: Settings, triton: TritonClient, admission: Admission) -> None:
        cv2.setNumThreads(1)  # the pool below spreads photographs over the cores instead
        self._settings = settings
        self._triton = triton
        self._admission = admission
        self._memory = MemoryBudget(settings.work_memory)
        _warm_up()
        self._pool = ThreadPoolExecutor(settings.work_threads, thread_name_prefix="picture")

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def colorize(self, data: bytes, parameters: Parameters, deadline: float) -> Colorized:
        """Colorize one encoded photograph.

        Args:
            data: the file's bytes.
            parameters: the caller's choices.
            deadline: the loop time at which the caller stops waiting.

        Raises:
            RehueError: see `rehue_serve.errors`.
        """
        started = time.monotonic()
        settings = self._settings
        spec = await self._triton.models.get_spec(parameters.model or settings.model)
        photograph = await self._open(data)
        header = photograph.header
        format = _choose_format(header, parameters)
        timings = dict.fromkeys(STAGES, 0.0)
        async with self._memory.reserve(images.estimate_memory(photograph, format)):
            pages = []
            for page in range(header.pages):
                compose, version = await self._colorize_page(
                    photograph, page, spec, parameters.strength, format, deadline, timings
                )
                pages.append(compose)
                del compose  # it holds the lightness, which is freed in `_encode`
            model = f"{spec.name}/{version}"
            encoded = await self._run_in_thread(
                lambda: _encode(photograph, pages, format, parameters, model, timings)
            )
        metrics.record_stage_times(timings)
        seconds = time.monotonic() - started
        metrics.record_picture(seconds)
        self._admission.record_duration(seconds)
        return Colorized(
            encoded, images.MEDIA_TYPES[format], model, timings, header.pages, header.frames
        )

    async def _open(self, data: bytes) -> images.Photograph:
        def open_image() -> images.Photograph:
            return images.open_image(
                data, max_bytes=self._settings.max_bytes, max_pixels=self._settings.max_pixels
            )

        if images.opens_quickly(data):
            return open_image()
        return await self._run_in_thread(open_image)  # a TIFF of a thousand pages takes a while

    async def _colorize_page(
        self,
        photograph: images.Photograph,
        page: int,
        spec: ModelSpec,
        strength: float,
        format: str,
        deadline: float,
        timings: dict[str, float],
    ) -> tuple[Compose, str]:
        """Colorize one page; returns what composes the picture, and the model's version.

        It is composed in the thread that encodes it: each change of threads costs CPU.
        """
        keep_alpha = images.can_hold_alpha(format)
        lightness, alpha, input, box = await self._run_in_thread(
            lambda: _decode_and_prepare(photograph, page, keep_alpha, spec, timings)
        )
        with _timed_stage("infer", timings):
            output, version = await self._triton.infer(spec, input, deadline)
        dtype = images.choose_depth(photograph.header, format)

        def compose() -> NDArray[Any] | Planes:
            with _timed_stage("color", timings):
                if format == "jpeg":
                    return colorize.compose_planes(lightness, output, box, spec, strength)
                rgb = colorize.compose_rgb(lightness, output, box, spec, strength, dtype)
                return rgb if alpha is None else np.dstack([rgb, _fit_depth(alpha, dtype)])

        return compose, version

    async def _run_in_thread(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, tracing.bind_current_span(work))


def _warm_up() -> None:
    """Build the tables and compile the loops, so that no caller waits for it."""
    lightness = lab.compute_fine_lightness(np.zeros((1, 1, 3), np.uint8))
    ab = np.zeros((1, 1, 2), np.float32)
    for dtype in (np.uint8, np.uint16):
        lab.convert_to_rgb(lightness, ab, dtype=dtype)
    ycbcr.convert_to_planes(lightness, ab)


def _decode_and_prepare(
    photograph: images.Photograph,
    page: int,
    keep_alpha: bool,
    spec: ModelSpec,
    timings: dict[str, float],
) -> tuple[lab.Lightness, NDArray[Any] | None, colorize.Tensor, colorize.Box]:
    with _timed_stage("decode", timings):
        lightness, alpha = images.decode_page(photograph, page, keep_alpha=keep_alpha)
    with _timed_stage("prepare", timings):
        input, box = colorize.prepare_input(lightness, spec)
    return lightness, alpha, input, box


def _fit_depth(alpha: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Convert alpha to the depth of the picture."""
    if alpha.dtype == dtype:
        return alpha
    return (alpha >> 8).astype(dtype) if dtype == np.uint8 else alpha.astype(dtype) * dtype(257)


def _choose_format(header: images.Header, parameters: Parameters) -> str:
    """Choose the format of the answer.

    Raises:
        InvalidParameter: it has no place for the pages.
    """
    format = header.format if parameters.format == "auto" else parameters.format
    if header.pages > 1 and format != "tiff":
        raise InvalidParameter(
            f"format is {format!r}; a TIFF of {header.pages} pages needs tiff, which holds them."
        )
    return format


def _encode(
    photograph: images.Photograph,
    pages: list[Compose],
    format: str,
    parameters: Parameters,
    model: str,
    timings: dict[str, float],
) -> bytes:
    # Each page's lightness is freed as soon as its picture is composed.
    pictures = [pages.pop(0)() for _ in range(len(pages))]
    with _timed_stage("encode", timings):
        height, width = pictures[0].shape[:2]
        metadata = build_metadata(photograph, width, height, parameters.metadata, model)
        return images.encode_pictures(pictures, format, parameters.quality, metadata)


@contextlib.contextmanager
def _timed_stage(stage: str, timings: dict[str, float]) -> Iterator[None]:
    """Trace a stage and record its time in milliseconds."""
    started = time.perf_counter()
    with tracing.start_stage_span(stage):
        yield
    timings[stage] = timings.get(stage, 0.0) + (time.perf_counter() - started) * 1000
