"""One photograph's way through the server, the same for every protocol.

Codecs and Lab run in threads (OpenCV and Pillow give up the interpreter's lock
there), so that the event loop stays free to answer others.
"""

import asyncio
import contextlib
import hmac
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image

from rehue_core import colorize, lab
from rehue_serve import images, metrics, tracing
from rehue_serve.errors import (
    DeadlineExceeded,
    Internal,
    InvalidParameter,
    Overloaded,
    RehueError,
    Unauthenticated,
    Unavailable,
)
from rehue_serve.settings import Settings
from rehue_serve.triton import TritonClient

log = logging.getLogger(__name__)
T = TypeVar("T")

FORMATS = ("auto", *images.MEDIA_TYPES)
STAGES = ("decode", "prepare", "infer", "color", "encode")
DEFAULT_QUALITY = 92  # of JPEG and WebP; no loss that is seen, a third of 100's bytes

# A float32 lightness and an 8-bit picture are held for each photograph in
# work; this many of the largest allowed may be decoded at once.
PICTURES_IN_MEMORY = 4

STOP_RETRY_AFTER = 5.0  # seconds; by then another server, or this one's successor, answers


@dataclass(frozen=True)
class Parameters:
    """What a caller may choose; raises InvalidParameter for what is out of range."""

    model: str = ""
    strength: float = 1.0
    format: str = "auto"
    quality: int = DEFAULT_QUALITY

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 2:  # also refuses NaN
            raise InvalidParameter(f"strength is {self.strength}; it goes from 0 to 2.")
        if self.format not in FORMATS:
            raise InvalidParameter(f"format is {self.format!r}; it is one of {', '.join(FORMATS)}.")
        if not 1 <= self.quality <= 100:
            raise InvalidParameter(f"quality is {self.quality}; it goes from 1 to 100.")


@dataclass(frozen=True)
class Colorized:
    """A picture in colour, encoded."""

    data: bytes
    media_type: str
    model: str  # name/version
    timings: dict[str, float]  # ms, by stage


class Service:
    """Colorizes photographs with the models of one Triton client."""

    def __init__(self, settings: Settings, triton: TritonClient) -> None:
        cv2.setNumThreads(1)  # the pool below spreads photographs over the cores instead
        self.settings = settings
        self.triton = triton
        # The first picture makes tables and machine code; no caller waits for that.
        lightness = images.decode(Image.new("RGB", (1, 1)), lab.compute_fine_lightness)
        lab.convert_to_rgb(lightness, np.zeros((1, 1, 2), np.float32))
        self._pool = ThreadPoolExecutor(settings.work_threads, thread_name_prefix="picture")
        self._requests = 0
        self._draining = False
        self._pixels = 0
        self._took = 0.1  # seconds for one photograph, a running mean
        self._keys: tuple[float, frozenset[bytes]] = (0.0, frozenset())

    async def start(self) -> None:
        await self.triton.start()
        self._beat = asyncio.create_task(self._report())

    async def close(self) -> None:
        self._beat.cancel()
        await self.triton.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _report(self) -> None:
        while True:
            metrics.under_way(self._requests)
            await asyncio.sleep(1)

    def authenticate(self, authorization: str | None) -> None:
        """Checks ``Bearer KEY`` against the keys, where keys are set.

        Raises:
            Unauthenticated: key missing or wrong.
        """
        path = self.settings.api_keys_file
        if path is None:
            return
        changed = path.stat().st_mtime
        if changed != self._keys[0]:
            lines = path.read_bytes().split(b"\n")
            self._keys = (changed, frozenset(line.strip() for line in lines if line.strip()))
        scheme, _, given = (authorization or "").partition(" ")
        key = given.strip().encode()
        if scheme.lower() != "bearer" or not key:
            raise Unauthenticated("Send an API key: Authorization: Bearer KEY.")
        # No early exit: the time taken tells nothing about the keys.
        if not sum(hmac.compare_digest(key, known) for known in self._keys[1]):
            raise Unauthenticated("This API key is not known.")

    @property
    def ready(self) -> bool:
        """Whether a photograph that comes now can be colorized."""
        return self.triton.ready and not self._draining

    def unavailable(self) -> Unavailable:
        """Why it is not ready."""
        if self._draining:
            return Unavailable("The server is stopping.", retry_after=STOP_RETRY_AFTER)
        return Unavailable("No Triton serves the default model.", retry_after=1.0)

    async def drain(self) -> None:
        """Refuses what comes from now on; returns when what is under way is done."""
        self._draining = True
        while self._requests:
            await asyncio.sleep(0.02)

    @contextlib.asynccontextmanager
    async def admitted(self, timeout: float | None = None) -> AsyncIterator[float]:
        """Room for one photograph, from before its body is read until it is answered.

        Args:
            timeout: seconds that the caller waits; the server's own limit when None.

        Yields:
            the loop time at which the block is ended.

        Raises:
            Unavailable, Overloaded, DeadlineExceeded: as their names say.
        """
        if self._draining:
            raise self.unavailable()
        if self._requests >= self.settings.max_requests:
            raise self._overloaded()
        limit = self.settings.timeout
        deadline = asyncio.get_running_loop().time() + min(limit, timeout or limit)
        self._requests += 1
        try:
            async with asyncio.timeout_at(deadline):
                yield deadline
        except TimeoutError:
            raise DeadlineExceeded("The time for this photograph is over.") from None
        finally:
            self._requests -= 1

    async def colorize(self, data: bytes, parameters: Parameters, deadline: float) -> Colorized:
        """An encoded photograph in, an encoded picture in colour out.

        Args:
            deadline: as `admitted` yields it.

        Raises:
            RehueError: one of its kinds.
        """
        started = time.monotonic()
        try:
            picture = await self._colorize(data, parameters, deadline)
        except RehueError:
            raise
        except Exception:
            # Whatever it was, the caller learns nothing of our insides.
            log.exception("a photograph of %d bytes failed", len(data))
            raise Internal("The server failed on this photograph.") from None
        metrics.took(picture.timings)
        self._took += 0.25 * (time.monotonic() - started - self._took)
        return picture

    async def _colorize(self, data: bytes, parameters: Parameters, deadline: float) -> Colorized:
        settings = self.settings
        spec = await self.triton.models.get_spec(parameters.model or settings.model)
        timings: dict[str, float] = {}
        header, image = images.open_image(
            data, max_bytes=settings.max_bytes, max_pixels=settings.max_pixels
        )
        if self._pixels and self._pixels + header.pixels > PICTURES_IN_MEMORY * settings.max_pixels:
            raise self._overloaded()
        self._pixels += header.pixels
        try:

            def before() -> tuple[lab.Lightness, colorize.Tensor, colorize.Box]:
                lightness = _timed(
                    timings, "decode", lambda: images.decode(image, lab.compute_fine_lightness)
                )
                prepared = _timed(
                    timings, "prepare", lambda: colorize.prepare_input(lightness, spec)
                )
                return lightness, *prepared

            lightness, input, box = await self._work(before)
            began = time.perf_counter()
            with tracing.stage("infer"):
                output, version = await self.triton.infer(spec, input, deadline)
            timings["infer"] = (time.perf_counter() - began) * 1000
            format = header.format if parameters.format == "auto" else parameters.format

            def after() -> bytes:
                rgb = _timed(
                    timings,
                    "color",
                    lambda: colorize.compose_rgb(lightness, output, box, spec, parameters.strength),
                )
                return _timed(
                    timings, "encode", lambda: images.encode(rgb, format, parameters.quality)
                )

            encoded = await self._work(after)
        finally:
            self._pixels -= header.pixels
        return Colorized(encoded, images.MEDIA_TYPES[format], f"{spec.name}/{version}", timings)

    async def _work(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, tracing.carried(work))

    def _overloaded(self) -> Overloaded:
        # When the photographs now under way are done, at today's pace.
        wait = self._took * max(1, self._requests) / self.settings.max_requests
        return Overloaded("Too many photographs are under way.", retry_after=max(1.0, wait))


def _timed(timings: dict[str, float], stage: str, work: Callable[[], T]) -> T:
    began = time.perf_counter()
    with tracing.stage(stage):
        result = work()
    timings[stage] = (time.perf_counter() - began) * 1000
    return result
