"""Colorize one encoded photograph: decode, infer, encode.

Codecs and Lab run in threads (OpenCV, Pillow and Numba release the GIL), so that the
event loop stays free for other requests.
"""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from rehue_core import colorize, lab, ycbcr
from rehue_core.colorize import ModelSpec
from rehue_core.edits import Edits, Hint, apply_edits
from rehue_serve import images, metrics, tracing
from rehue_serve.admission import Admission
from rehue_serve.candidates import Candidates, compose_candidates
from rehue_serve.choices import Parameters
from rehue_serve.composition import ComposedPicture
from rehue_serve.errors import InvalidParameter
from rehue_serve.kept import KeptAnswers
from rehue_serve.memory import MemoryBudget
from rehue_serve.metadata.answer import complete_metadata, read_metadata_of
from rehue_serve.metadata.credentials import (
    Signer,
    can_hold_credentials,
    create_signer,
)
from rehue_serve.reference import read_palette
from rehue_serve.settings import Settings
from rehue_serve.triton import TritonClient

T = TypeVar("T")
Compose = Callable[[], Any]  # what `images.encode_pictures` takes

STAGES = ("decode", "prepare", "infer", "color", "encode")
LARGE = 1 << 22  # pixels; larger pictures are composed while they are encoded, if they can be


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
        self._kept = KeptAnswers(settings.edit_memory)
        self._signer = create_signer(settings.c2pa_certificates, settings.c2pa_key)
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
        parameters = await self._resolve_reference(parameters)
        digest = await self._compute_digest(data) if parameters.edits else ""
        timings = dict.fromkeys(STAGES, 0.0)
        del data  # freed once the last page is decoded
        async with self._memory.reserve(
            images.estimate_memory(
                photograph, format, parameters.depth, signed=self._signer is not None
            )
        ):
            pages = []
            for page in range(header.pages):
                compose, version = await self._colorize_page(
                    photograph, page, spec, parameters, digest, format, deadline, timings
                )
                pages.append(compose)
                del compose  # it holds the lightness, which is freed in `_encode`
            model = f"{spec.name}/{version}"
            encoded = await self._run_in_thread(
                lambda: _encode(photograph, pages, format, parameters, model, self._signer, timings)
            )
        metrics.record_stage_times(timings)
        seconds = time.monotonic() - started
        metrics.record_picture(seconds)
        self._admission.record_duration(seconds)
        return Colorized(
            encoded, images.MEDIA_TYPES[format], model, timings, header.pages, header.frames
        )

    async def propose(self, data: bytes, parameters: Parameters, deadline: float) -> Candidates:
        """Colorize one encoded photograph in several versions, from one answer of the network.

        Args and raises: see `colorize`. Of several pages the first is colorized.
        """
        started = time.monotonic()
        spec = await self._triton.models.get_spec(parameters.model or self._settings.model)
        photograph = await self._open(data)
        parameters = await self._resolve_reference(parameters)
        digest = await self._compute_digest(data)
        timings = dict.fromkeys(STAGES, 0.0)
        async with self._memory.reserve(images.estimate_memory(photograph, "jpeg")):
            lightness, _, input, box = await self._run_in_thread(
                lambda: _decode_and_prepare(photograph, 0, False, spec, timings)
            )
            with _timed_stage("infer", timings):
                output, version = await self._infer(digest, 0, spec, input, deadline)
            ab = colorize.cut_out_box(output, box, spec).astype(np.float32)
            with _timed_stage("color", timings):
                versions = await self._run_in_thread(
                    lambda: compose_candidates(
                        lightness, ab * np.float32(spec.ab_scale),
                        strength=parameters.strength, edits=parameters.edits, size=parameters.size,
                        model=f"{spec.name}/{version}",
                    )
                )  # fmt: skip
        metrics.record_stage_times(timings)
        self._admission.record_duration(time.monotonic() - started)
        return Candidates(versions, f"{spec.name}/{version}", timings)

    async def _resolve_reference(self, parameters: Parameters) -> Parameters:
        """Replace the reference picture by its palette."""
        data = parameters.reference
        if not data:
            return parameters
        settings = self._settings
        palette = await self._run_in_thread(
            lambda: read_palette(data, max_bytes=settings.max_bytes, max_pixels=settings.max_pixels)
        )
        edits = replace(parameters.edits, palette=palette)
        return replace(parameters, reference=b"", edits=edits)

    async def _compute_digest(self, data: bytes) -> str:
        return await self._run_in_thread(lambda: hashlib.sha256(data).hexdigest())

    async def _infer(
        self, digest: str, page: int, spec: ModelSpec, input: NDArray[Any], deadline: float
    ) -> tuple[NDArray[Any], str]:
        """Return the network's answer and its version; those of an edited photograph are kept.

        Args:
            digest: of an edited photograph; empty: the answer is not kept.
        """
        if not digest:
            return await self._triton.infer(spec, input, deadline)
        key = (digest, page, spec.name)
        answer = self._kept.get(key)
        if answer is None:
            answer = await self._triton.infer(spec, input, deadline)
            self._kept.put(key, answer)
        return answer

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
        parameters: Parameters,
        digest: str,
        format: str,
        deadline: float,
        timings: dict[str, float],
    ) -> tuple[Compose, str]:
        """Colorize one page; returns what composes the picture, and the model's version.

        It is composed in the thread that encodes it: each change of threads costs CPU.
        """
        keep_alpha = images.can_hold_alpha(format)

        def decode() -> "_Decoded":
            if page == 0:
                _read_kept(photograph, parameters)
                if self._signer and can_hold_credentials(format, photograph.header.pages):
                    kept = photograph.data if parameters.metadata == "keep" else b""
                    photograph.manifest = self._signer.begin_manifest(kept)
            decoded = _decode_and_prepare(photograph, page, keep_alpha, spec, timings)
            if page == photograph.header.pages - 1:
                photograph.free()
            return decoded

        lightness, alpha, input, box = await self._run_in_thread(decode)
        with _timed_stage("infer", timings):
            output, version = await self._infer(digest, page, spec, input, deadline)
        dtype = images.choose_depth(photograph.header, format, parameters.depth)
        profile, marked = photograph.profile, parameters.mark == "visible"

        def compose() -> Any:
            with _timed_stage("color", timings):
                ab, scale = colorize.choose_ab(
                    lightness, output, box, spec, parameters.strength, parameters.edits
                )
                if format == "jpeg" and not (profile or marked):
                    return ycbcr.convert_to_planes(lightness, ab, strength=scale)
                picture = ComposedPicture(
                    lightness, alpha, ab,
                    strength=scale, dtype=dtype, profile=profile, marked=marked,
                )  # fmt: skip
                is_large = lightness.size > LARGE and images.encodes_by_rows(format)
                return picture if is_large else picture[:]

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
    apply_edits(ab, lightness, Edits(hints=(Hint(0, 0, "gray"),)))


_Decoded = tuple[lab.Lightness, NDArray[Any] | None, colorize.Tensor, colorize.Box]


def _decode_and_prepare(
    photograph: images.Photograph,
    page: int,
    keep_alpha: bool,
    spec: ModelSpec,
    timings: dict[str, float],
) -> _Decoded:
    with _timed_stage("decode", timings):
        lightness, alpha = images.decode_page(photograph, page, keep_alpha=keep_alpha)
    with _timed_stage("prepare", timings):
        input, box = colorize.prepare_input(lightness, spec)
    return lightness, alpha, input, box


def _read_kept(photograph: images.Photograph, parameters: Parameters) -> None:
    """Read what the answer keeps of the file besides its pixels."""
    if parameters.metadata == "keep":
        photograph.metadata = read_metadata_of(photograph)
    if parameters.profile == "keep":
        photograph.profile = images.choose_profile(photograph)


def _choose_format(header: images.Header, parameters: Parameters) -> str:
    """Choose the format of the answer.

    Raises:
        InvalidParameter: it has no place for the pages, or they cannot have hints.
    """
    format = header.format if parameters.format == "auto" else parameters.format
    if header.pages > 1 and format != "tiff":
        raise InvalidParameter(
            f"format is {format!r}; a TIFF of {header.pages} pages needs tiff, which holds them."
        )
    if header.pages > 1 and parameters.edits.hints:
        raise InvalidParameter(
            f"hints are for photographs of one page; this TIFF has {header.pages}, split it first."
        )
    return format


def _encode(
    photograph: images.Photograph,
    pages: list[Compose],
    format: str,
    parameters: Parameters,
    model: str,
    signer: Signer | None,
    timings: dict[str, float],
) -> bytes:
    # Each page's lightness is freed as soon as its picture is composed.
    pictures = [pages.pop(0)() for _ in range(len(pages))]
    with _timed_stage("encode", timings):
        height, width = pictures[0].shape[:2]
        edits = parameters.edits and parameters.edits.compute_digest(parameters.strength)
        metadata = complete_metadata(
            photograph.metadata,
            width,
            height,
            model,
            edits or "",
            photograph.profile,
        )
        data = images.encode_pictures(pictures, format, parameters.quality, metadata)
        # A large picture is composed while it is encoded.
        composed = 1000 * sum(p.seconds for p in pictures if isinstance(p, ComposedPicture))
        if signer and photograph.manifest:
            pictures.clear()  # their memory is used for another copy of the file
            media_type = images.MEDIA_TYPES[format]
            data = signer.sign(photograph.manifest, data, media_type, model, edits or "")
    timings["color"] += composed
    timings["encode"] -= composed
    return data


@contextlib.contextmanager
def _timed_stage(stage: str, timings: dict[str, float]) -> Iterator[None]:
    """Trace a stage and record its time in milliseconds."""
    started = time.perf_counter()
    with tracing.start_stage_span(stage):
        yield
    timings[stage] = timings.get(stage, 0.0) + (time.perf_counter() - started) * 1000
