"""Options of a request, and what the server returns."""

import base64
import io
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rehue_client.choices import CHOICES
from rehue_client.edits import NO_EDITS, Edits
from rehue_client.errors import InvalidParameter, RehueError
from rehue_client.sources import Source

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image

FORMATS = CHOICES["format"]

# The image format that a file name stands for.
SUFFIX_FORMATS = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jpe": "jpeg",
    ".jfif": "jpeg",
    ".png": "png",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
}


# Formats that are read and not written, and the format of the answer.
READ_SUFFIXES = {
    ".heic": "jpeg",
    ".heif": "jpeg",
    ".avif": "jpeg",
    ".jp2": "jpeg",
    ".j2k": "jpeg",
    ".gif": "png",
}


def get_suffix_format(path: Path) -> str | None:
    """Return the image format of a file name, or None if its suffix is not an image's."""
    return SUFFIX_FORMATS.get(path.suffix.lower())


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Time that the server spent on each stage, in milliseconds."""

    decode: float = 0.0
    prepare: float = 0.0
    infer: float = 0.0
    color: float = 0.0
    encode: float = 0.0

    @classmethod
    def from_stages(cls, stages: Mapping[str, float]) -> "Timings":
        """Create from milliseconds by stage; unknown stages are ignored."""
        return cls(**{f.name: stages[f.name] for f in fields(cls) if f.name in stages})

    @property
    def total(self) -> float:
        return self.decode + self.prepare + self.infer + self.color + self.encode


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A colorized photograph.

    Attributes:
        data: the encoded image.
        media_type: of ``data``, for example ``image/jpeg``.
        model: name and version, for example ``rehue/1``.
        request_id: the server's ID of the request.
        timings: time that the server spent on it.
        pages: of a TIFF that are in ``data``; else 1.
        frames: pages or frames of the photograph's file. Of an animation the first is
            colorized.
        dropped: what the photograph has and ``data`` has not, although metadata is kept:
            ``exif``, ``xmp``, ``iptc`` or ``text``, broken, too large, or without a place in
            the format.
    """

    data: bytes = field(repr=False)
    media_type: str
    model: str
    request_id: str
    timings: Timings
    pages: int = 1
    frames: int = 1
    dropped: tuple[str, ...] = ()

    @property
    def format(self) -> str:
        """``jpeg``, ``png``, ``webp`` or ``tiff``."""
        return self.media_type.removeprefix("image/")

    def image(self) -> "PIL.Image.Image":
        """Decode with Pillow, which has to be installed."""
        try:
            import PIL.Image
        except ImportError as error:
            raise ImportError("Picture.image() and .array() need Pillow") from error
        return PIL.Image.open(io.BytesIO(self.data))

    def array(self) -> "np.ndarray[Any, np.dtype[np.uint8]]":
        """Decode to a NumPy array, (H, W, 3) uint8 in RGB. Needs NumPy and Pillow."""
        try:
            import numpy as np
        except ImportError as error:
            raise ImportError("Picture.array() needs NumPy") from error
        return np.asarray(self.image().convert("RGB"))

    def _repr_png_(self) -> bytes | None:
        """Show the picture in Jupyter; likewise `_repr_jpeg_` and `_repr_html_`."""
        return self.data if self.format == "png" else None

    def _repr_jpeg_(self) -> bytes | None:
        return self.data if self.format == "jpeg" else None

    def _repr_html_(self) -> str | None:
        if self.format != "webp":
            return None
        return f'<img src="data:image/webp;base64,{base64.b64encode(self.data).decode()}">'

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the image to ``path``, atomically; creates missing folders.

        Raises:
            ValueError: the suffix of ``path`` stands for another image format.
            OSError: the file cannot be written.
        """
        path = Path(path)
        expected = get_suffix_format(path)
        if expected is not None and expected != self.format:
            raise ValueError(
                f"{path} would contain a {self.format.upper()} image: "
                f"use another suffix, or request format={expected!r}"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".rehue-{secrets.token_hex(8)}")
        try:
            temporary.write_bytes(self.data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return path


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One version of a photograph, to choose from.

    Attributes:
        name: for example ``warmer``.
        data: the picture, a JPEG.
        strength: pass it with ``edits`` to `Client.colorize` to get this version in full.
        edits: the choices that make it.
    """

    name: str
    data: bytes = field(repr=False)
    strength: float
    edits: Edits

    def image(self) -> "PIL.Image.Image":
        """Decode with Pillow, which has to be installed."""
        import PIL.Image

        return PIL.Image.open(io.BytesIO(self.data))

    def _repr_jpeg_(self) -> bytes:
        """Show the picture in Jupyter."""
        return self.data


@dataclass(frozen=True, kw_only=True)
class Result:
    """The outcome for one photograph of several: ``picture`` or ``error`` is set.

    Attributes:
        source: as passed to `colorize_many`.
        key: as passed with it in a pair; else None.
    """

    source: Source = field(repr=False)
    key: Any = None
    picture: Picture | None = None
    error: RehueError | None = None


@dataclass(frozen=True, kw_only=True)
class Options:
    """Parameters of a request; None: the server's default."""

    model: str | None = None
    strength: float = 1.0
    format: str = "auto"
    quality: int | None = None
    metadata: str = "keep"
    depth: str = "auto"
    profile: str = "srgb"
    mark: str = "none"
    edits: Edits = NO_EDITS

    def __post_init__(self) -> None:
        # The server checks the ranges. What is an enum in the proto is checked here.
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise InvalidParameter(f"{name} {value!r} is not one of {', '.join(allowed)}")


@dataclass(frozen=True, kw_only=True)
class CandidateOptions(Options):
    """Parameters of a request for candidates."""

    size: int = 512
    more_looks: bool = False


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that a server offers."""

    name: str
    version: str
    state: str
    default: bool
    description: str = ""
