"""Colorize one encoded photograph: the order of the stages, and where each runs.

Codecs and Lab run in threads (OpenCV, Pillow and Numba release the GIL), so that the
event loop stays free for other requests.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import cv2
import numpy as np

from rehue_core.colorize import ModelSpec, Tensor
from rehue_serve import images, metrics, tracing
from rehue_serve.admission import Admission
from rehue_serve.candidates import Candidates, compose_candidates
from rehue_serve.choices import Parameters
from rehue_serve.formats import MEDIA_TYPES, can_hold_alpha
from rehue_serve.kept import Answer, KeptAnswers
from rehue_serve.memory import MemoryBudget
from rehue_serve.memory_estimate import estimate_memory
from rehue_serve.metadata.credentials import (
    create_signer,
)
from rehue_serve.reference import read_palette
from rehue_serve.settings import Settings
from rehue_serve.stages import (
    STAGES,
    Compose,
    Decoded,
    choose_format,
    compose_picture,
    compute_fields,
    decode_and_prepare,
    encode,
    read_kept,
    timed_stage,
    warm_up,
)
from rehue_serve.triton import TritonClient

T = TypeVar("T")


@dataclass(frozen=True)
class Colorized:
    """An encoded picture in colour."""

    data: bytes
    media_type: str
    model: str  # name/version
    timings: dict[str, float]  # ms, by stage
    pages: int = 1  # in the answer
    frames: int = 1  # in the photograph's file
    dropped: tuple[str, ...] = ()  # names of its metadata that the answer has not


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
        warm_up()
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
        photograph = await self._open_photograph(data)
        header = photograph.header
        format = choose_format(header, parameters)
        parameters = await self._resolve_reference(parameters)
        digest = await self._compute_digest(data) if parameters.edits else ""
        timings = dict.fromkeys(STAGES, 0.0)
        del data  # freed once the last page is decoded
        async with self._memory.reserve(
            estimate_memory(photograph, format, parameters.depth, signed=self._signer is not None)
        ):
            pages = []
            for page in range(header.pages):
                compose, version = await self._colorize_page(
                    photograph, page, spec, parameters, digest, format, deadline, timings
                )
                pages.append(compose)
                del compose  # it holds the lightness, which is freed in `encode`
            model = f"{spec.name}/{version}"
            encoded, dropped = await self._run_in_thread(
                lambda: encode(photograph, pages, format, parameters, model, self._signer, timings)
            )
        metrics.record_stage_times(timings)
        seconds = time.monotonic() - started
        metrics.record_picture(seconds)
        self._admission.record_duration(seconds)
        return Colorized(
            encoded, MEDIA_TYPES[format], model, timings, header.pages, header.frames, dropped
        )

    async def propose(self, data: bytes, parameters: Parameters, deadline: float) -> Candidates:
        """Colorize one encoded photograph in several versions.

        They are from one answer of the network, and from those of other looks if asked for.
        Args and raises: see `colorize`. Of several pages the first is colorized.
        """
        started = time.monotonic()
        spec = await self._triton.models.get_spec(parameters.model or self._settings.model)
        photograph = await self._open_photograph(data)
        parameters = await self._resolve_reference(parameters)
        digest = await self._compute_digest(data)
        timings = dict.fromkeys(STAGES, 0.0)
        async with self._memory.reserve(estimate_memory(photograph, "jpeg")):
            kept = {look: self._find_kept(digest, 0, spec, look) for look in parameters.looks}
            missing = [look for look, answer in kept.items() if answer is None]
            lightness, _, inputs = await self._run_in_thread(
                lambda: decode_and_prepare(photograph, 0, False, spec, timings, missing)
            )
            with timed_stage("infer", timings):
                looks = (self._infer_look(digest, 0, spec, n, inputs[n], deadline) for n in missing)
                found = dict(zip(missing, await asyncio.gather(*looks), strict=True))
            answers = {look: answer or found[look] for look, answer in kept.items()}
            version = answers[parameters.edits.look][1]
            with timed_stage("color", timings):
                versions = await self._run_in_thread(
                    lambda: compose_candidates(
                        lightness, compute_fields(answers, lightness, spec),
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

    async def _infer_look(
        self,
        digest: str,
        page: int,
        spec: ModelSpec,
        look: str,
        inputs: Sequence[Tensor],
        deadline: float,
    ) -> Answer:
        """Return the network's outputs and its version; those of an edited photograph are kept.

        Args:
            digest: of an edited photograph; empty: the answer is not kept.
            inputs: of this look.
        """
        if len(inputs) == 1:  # as a rule: a task of its own would cost CPU
            output, version = await self._triton.infer(spec, inputs[0], deadline)
            outputs = output[None]
        else:
            runs = (self._triton.infer(spec, input, deadline) for input in inputs)
            answers = await asyncio.gather(*runs)
            outputs, version = np.stack([output for output, _ in answers]), answers[0][1]
        if digest:
            self._kept.put((digest, page, spec.name, look), (outputs, version))
        return outputs, version

    def _find_kept(self, digest: str, page: int, spec: ModelSpec, look: str) -> Answer | None:
        return self._kept.get((digest, page, spec.name, look)) if digest else None

    async def _open_photograph(self, data: bytes) -> images.Photograph:
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
        keep_alpha, look = can_hold_alpha(format), parameters.edits.look
        kept = self._find_kept(digest, page, spec, look)

        def decode() -> Decoded:
            if page == 0:
                read_kept(photograph, parameters, format, self._signer)
            decoded = decode_and_prepare(
                photograph, page, keep_alpha, spec, timings, [] if kept else [look]
            )
            if page == photograph.header.pages - 1:
                photograph.free()
            return decoded

        lightness, alpha, inputs = await self._run_in_thread(decode)
        with timed_stage("infer", timings):
            outputs, version = kept or await self._infer_look(
                digest, page, spec, look, inputs[look], deadline
            )

        def compose() -> Any:
            return compose_picture(
                photograph, lightness, alpha, outputs, spec, parameters, format, timings
            )

        return compose, version

    async def _run_in_thread(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, tracing.bind_current_span(work))
