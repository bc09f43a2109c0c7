"""What goes in and what comes out: a source, a request, a picture."""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import BinaryIO

from rehue_client.errors import InvalidParameter, RehueError, SourceError

Source = str | os.PathLike[str] | bytes | BinaryIO

FORMATS = ("auto", "jpeg", "png", "webp", "tiff")


@dataclass(frozen=True, kw_only=True)
class Timings:
    """What the server spent on each stage, in milliseconds."""

    decode: float = 0.0
    prepare: float = 0.0
    infer: float = 0.0
    color: float = 0.0
    encode: float = 0.0

    @classmethod
    def of(cls, stages: Mapping[str, float]) -> "Timings":
        """From names and milliseconds; stages that are not known here are left out."""
        return cls(**{f.name: stages[f.name] for f in fields(cls) if f.name in stages})

    @property
    def total(self) -> float:
        return self.decode + self.prepare + self.infer + self.color + self.encode


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A photograph in colour.

    Attributes:
        data: the encoded image.
        media_type: of ``data``, for example ``image/jpeg``.
        model: name and version, for example ``rehue/1``.
        request_id: the server's name for the request.
        timings: what the server spent on it.
    """

    data: bytes = field(repr=False)
    media_type: str
    model: str
    request_id: str
    timings: Timings

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the image so that ``path`` never holds half of one."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".rehue-{secrets.token_hex(8)}")
        try:
            part.write_bytes(self.data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return path


@dataclass(frozen=True, kw_only=True)
class Result:
    """One photograph of many: either its picture or the reason why there is none."""

    source: Source = field(repr=False)
    picture: Picture | None = None
    error: RehueError | None = None


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to colorize; the server's own defaults where a value is None."""

    model: str | None = None
    strength: float = 1.0
    format: str = "auto"
    quality: int | None = None

    def __post_init__(self) -> None:
        # Ranges are the server's to know; a format has to have a name on the wire.
        if self.format not in FORMATS:
            raise InvalidParameter(f"format {self.format!r} is not one of {', '.join(FORMATS)}")


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that a server offers."""

    name: str
    version: str
    state: str
    default: bool


def read(source: Source) -> bytes:
    """The bytes of a path, of a binary file from where it stands, or themselves."""
    if isinstance(source, bytes):
        return source
    try:
        if isinstance(source, (str, os.PathLike)):
            return Path(source).read_bytes()
        return source.read()
    except OSError as error:
        raise SourceError(f"cannot read {source}: {error.strerror}") from error
