"""The stages of a photograph that run in threads: decode, prepare, color, encode.

Each stage is traced, and its time is recorded. The network's stage is in `rehue_serve.pipeline`.
"""

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehue_client.v1 import rehue_pb2
from rehue_core import colorize, lab, ycbcr
from rehue_core.colorize import ModelSpec
from rehue_core.edits import Edits, Hint, apply_edits
from rehue_core.looks import compute_field, join_look, prepare_look
from rehue_core.rgb import convert_to_rgb
from rehue_serve import images, tracing
from rehue_serve.choices import Parameters
from rehue_serve.composition import ComposedPicture
from rehue_serve.encoding.pictures import encode_pictures
from rehue_serve.errors import InvalidParameter
from rehue_serve.formats import MEDIA_TYPES, encodes_by_rows
from rehue_serve.kept import Answer
from rehue_serve.metadata.answer import complete_metadata, read_metadata_of
from rehue_serve.metadata.credentials import Signer, can_hold_credentials

Compose = Callable[[], Any]  # what `encode_pictures` takes
STAGES = tuple(field.name for field in rehue_pb2.Timings.DESCRIPTOR.fields)  # in their order
LARGE = 1 << 22  # pixels; larger pictures are composed while they are encoded, if they can be
# Lightness, alpha, and the network's inputs by look.
Decoded = tuple[lab.Lightness, NDArray[Any] | None, dict[str, list[colorize.Tensor]]]


@contextlib.contextmanager
def timed_stage(stage: str, timings: dict[str, float]) -> Iterator[None]:
    """Trace a stage and record its time in milliseconds."""
    started = time.perf_counter()
    with tracing.start_stage_span(stage):
        yield
    timings[stage] = timings.get(stage, 0.0) + (time.perf_counter() - started) * 1000


def warm_up() -> None:
    """Build the tables and compile the loops, so that no caller waits for it."""
    lightness = lab.compute_fine_lightness(np.zeros((1, 1, 3), np.uint8))
    ab = np.zeros((1, 1, 2), np.float32)
    for dtype in (np.uint8, np.uint16):
        convert_to_rgb(lightness, ab, dtype=dtype)
    ycbcr.convert_to_planes(lightness, ab)
    apply_edits(ab, lightness, Edits(hints=(Hint(0, 0, "gray"),)))


def decode_and_prepare(
    photograph: images.Photograph,
    page: int,
    keep_alpha: bool,
    spec: ModelSpec,
    timings: dict[str, float],
    looks: Collection[str],
) -> Decoded:
    """Return a page's lightness and alpha, and the network's inputs of these looks."""
    with timed_stage("decode", timings):
        lightness, alpha = images.decode_page(photograph, page, keep_alpha=keep_alpha)
    if not looks:
        return lightness, alpha, {}
    with timed_stage("prepare", timings):
        inputs = {look: prepare_look(lightness, spec, look) for look in looks}
    return lightness, alpha, inputs


def compute_fields(
    answers: Mapping[str, Answer], lightness: lab.Lightness, spec: ModelSpec
) -> dict[str, lab.Float32]:
    """Return the ab field of each look, hw2, Lab units, of the network's answers."""
    return {
        look: compute_field(outputs, lightness.shape, spec, look)
        for look, (outputs, _) in answers.items()
    }


def read_kept(
    photograph: images.Photograph, parameters: Parameters, format: str, signer: Signer | None
) -> None:
    """Read what the answer keeps of the file besides its pixels, also for its signature."""
    if parameters.metadata == "keep":
        photograph.metadata = read_metadata_of(photograph)
    if parameters.profile == "keep":
        photograph.profile = images.choose_profile(photograph)
    if signer and can_hold_credentials(format, photograph.header.pages):
        kept = photograph.data if parameters.metadata == "keep" else b""
        photograph.manifest = signer.begin_manifest(kept)


def compose_picture(
    photograph: images.Photograph,
    lightness: lab.Lightness,
    alpha: NDArray[Any] | None,
    outputs: colorize.Tensor,
    spec: ModelSpec,
    parameters: Parameters,
    format: str,
    timings: dict[str, float],
) -> Any:
    """Join the network's colours, outputs of the look asked for, and the photograph's lightness.

    Returns:
        What `encode_pictures` takes: planes for JPEG, else pixels, or a picture that is
        composed while it is encoded.
    """
    profile, marked = photograph.profile, parameters.mark == "visible"
    with timed_stage("color", timings):
        output, box = join_look(outputs, lightness.shape, spec, parameters.edits.look)
        ab, scale = colorize.choose_ab(
            lightness, output, box, spec, parameters.strength, parameters.edits
        )
        if format == "jpeg" and not (profile or marked):
            return ycbcr.convert_to_planes(lightness, ab, strength=scale)
        picture = ComposedPicture(
            lightness, alpha, ab,
            strength=scale, dtype=images.choose_depth(photograph.header, format, parameters.depth),
            profile=profile, marked=marked,
        )  # fmt: skip
        is_large = lightness.size > LARGE and encodes_by_rows(format)
        return picture if is_large else picture[:]


def choose_format(header: images.Header, parameters: Parameters) -> str:
    """Choose the format of the answer.

    Raises:
        InvalidParameter: it has no place for the pages, or they cannot have hints.
    """
    format = header.format if parameters.format == "auto" else parameters.format
    if header.pages > 1 and format != "tiff":
        raise InvalidParameter(
            f"format is {format!r}; a TIFF of {header.pages} pages can only be returned as tiff."
        )
    if header.pages > 1 and parameters.edits.hints:
        raise InvalidParameter(
            f"hints are for photographs of one page; this TIFF has {header.pages}, split it first."
        )
    return format


def encode(
    photograph: images.Photograph,
    pages: list[Compose],
    format: str,
    parameters: Parameters,
    model: str,
    signer: Signer | None,
    timings: dict[str, float],
) -> tuple[bytes, tuple[str, ...]]:
    """Compose and encode the pages, with what the file keeps besides its pixels.

    Returns:
        The file, and the names of the photograph's metadata that it does not have.
    """
    # Each page's lightness is freed as soon as its picture is composed.
    pictures = [pages.pop(0)() for _ in range(len(pages))]
    with timed_stage("encode", timings):
        height, width = pictures[0].shape[:2]
        edits = parameters.edits and parameters.edits.compute_digest(parameters.strength)
        metadata = complete_metadata(
            photograph.metadata,
            width,
            height,
            model,
            edits or "",
            photograph.profile,
            format,
        )
        data = encode_pictures(pictures, format, parameters.quality, metadata)
        # A large picture is composed while it is encoded.
        composed = 1000 * sum(p.seconds for p in pictures if isinstance(p, ComposedPicture))
        if signer and photograph.manifest:
            pictures.clear()  # their memory is used for another copy of the file
            media_type = MEDIA_TYPES[format]
            data = signer.sign(photograph.manifest, data, media_type, model, edits or "")
    timings["color"] += composed
    timings["encode"] -= composed
    return data, metadata.dropped
