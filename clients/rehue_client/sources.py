"""The photographs that callers pass in: files, encoded images and pixels."""

import io
import math
import os
import stat
import struct
import sys
import zlib
from array import array
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from rehue_client.errors import ImageTooLarge, RehueError, SourceError


class PillowImage(Protocol):
    """What this module uses of ``PIL.Image.Image``."""

    @property
    def mode(self) -> str: ...
    @property
    def size(self) -> tuple[int, int]: ...

    def getbands(self) -> tuple[str, ...]: ...
    def convert(self, mode: str) -> Any: ...
    def save(self, fp: Any, format: str | None = None, **params: Any) -> None: ...


class Array(Protocol):
    """A NumPy array, or anything that converts itself to one."""

    def __array__(self) -> Any: ...


Source = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | PillowImage | Array
)  # fmt: skip

ACCEPTED = (
    "a path, an encoded image (bytes, bytearray, memoryview), a file opened in binary mode, "
    "a Pillow image, or an array of uint8 or uint16 with shape (H, W) or (H, W, 1 to 4)"
)

# Pillow's modes that PNG can store. Others are converted to RGB.
PNG_MODES = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})
PNG_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by number of channels


def read_source(source: Source, max_bytes: int) -> bytes:
    """Return the encoded image of a source; pixels are encoded as PNG.

    Args:
        max_bytes: size limit of the encoded image. A larger file is not read.

    Raises:
        SourceError: the source cannot be read.
        ImageTooLarge: the source is larger than ``max_bytes``.
        TypeError: the source has an unsupported type.
    """
    if isinstance(source, (str, os.PathLike)):
        image = _read_path(Path(source), max_bytes)
    elif hasattr(source, "read"):
        image = _read_file(cast("BinaryIO", source), max_bytes)
    elif hasattr(source, "save") and hasattr(source, "mode"):
        image = _encode_pillow_image(cast("PillowImage", source))
    else:
        image = _convert_buffer(source)
    if len(image) > max_bytes:
        raise ImageTooLarge(f"the photograph is larger than the limit of {max_bytes:,} bytes")
    return image


def measure_source(source: Source, max_bytes: int) -> int:
    """Return the bytes that `read_source` takes at most, as far as they are known before.

    Those of ``bytes`` are the caller's own; a pipe's, for example, are not known.
    """
    try:
        return _measure(source, max_bytes)
    except Exception:  # noqa: BLE001  # reading it says what is wrong
        return 0


def _measure(source: Any, max_bytes: int) -> int:
    is_path = isinstance(source, (str, os.PathLike))
    if is_path or hasattr(source, "read"):
        size = (Path(source).stat() if is_path else os.fstat(source.fileno())).st_size
        return size if size <= max_bytes else 0  # a larger one is not read
    if hasattr(source, "save") and hasattr(source, "mode"):
        return int(math.prod(source.size) * len(source.getbands()))
    return 0 if isinstance(source, bytes) else memoryview(source).nbytes


def read_result_source(source: Source, max_bytes: int) -> bytes:
    """Read a source of several: whatever goes wrong is a `RehueError` of that source."""
    try:
        return read_source(source, max_bytes)
    except RehueError:
        raise
    except Exception as error:
        # The caller's own object was asked, so anything may be raised.
        raise SourceError(str(error) or type(error).__name__) from error


def split_item(item: Source | tuple[Any, Source]) -> tuple[Any, Source]:
    """Return the key and the source of an item of ``sources``; the key may be None."""
    return item if isinstance(item, tuple) and len(item) == 2 else (None, item)


def _read_path(path: Path, max_bytes: int) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe, for example, has no size
            with path.open("rb") as file:
                return file.read(max_bytes + 1)
        if status.st_size > max_bytes:
            raise ImageTooLarge(
                f"{path} has {status.st_size:,} bytes; the limit is {max_bytes:,} bytes"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {path}: {_describe(error)}") from error


def _read_file(file: BinaryIO, max_bytes: int) -> bytes:
    try:
        data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        name = getattr(file, "name", file)
        raise SourceError(f"cannot read {name}: {_describe(error)}") from error
    if isinstance(data, str):
        raise TypeError("the file is opened in text mode; open it in binary mode ('rb')")
    return bytes(data)


def _describe(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)


def _encode_pillow_image(image: PillowImage) -> bytes:
    buffer = io.BytesIO()
    try:  # Pillow reads files lazily, so that a broken one is noticed here
        storable = image if image.mode in PNG_MODES else image.convert("RGB")
        storable.save(buffer, "PNG", compress_level=1)
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read the Pillow image: {_describe(error)}") from error
    return buffer.getvalue()


def _convert_buffer(source: Any) -> bytes:
    """Return an encoded image as it is, and encode an array of pixels."""
    if isinstance(source, bytes):
        return source
    try:
        view = memoryview(source.__array__() if hasattr(source, "__array__") else source)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{type(source).__name__} is not a photograph: expected {ACCEPTED}") from (
            error
        )
    if view.ndim == 1 and view.itemsize == 1:
        return view.tobytes()
    return encode_png(view, getattr(source, "dtype", None))


def encode_png(pixels: memoryview, dtype: object = None) -> bytes:
    """Encode pixels of shape (H, W) or (H, W, 1 to 4), uint8 or uint16, as PNG.

    The channels are gray, gray and alpha, RGB, or RGB and alpha. ``dtype`` is what the
    error calls the pixels' type.

    Raises:
        TypeError: another shape or type.
    """
    shape = pixels.shape or ()
    channels = shape[2] if pixels.ndim == 3 else 1
    depth = {"B": 8, "H": 16}.get(pixels.format)
    if depth is None or pixels.ndim not in (2, 3) or not 1 <= channels <= 4 or not pixels.nbytes:
        raise TypeError(
            f"an array of shape {shape} and type {dtype or pixels.format} is not a photograph: "
            f"expected {ACCEPTED}"
        )
    height, width = shape[:2]
    raw = pixels.tobytes()
    if depth == 16 and sys.byteorder == "little":
        samples = array("H", raw)
        samples.byteswap()
        raw = samples.tobytes()
    stride = len(raw) // height
    # Filter type 0 (none) before each row; the fastest compression, since this is sent once.
    rows = b"".join(b"\0" + raw[start : start + stride] for start in range(0, len(raw), stride))
    header = struct.pack(">IIBBBBB", width, height, depth, PNG_COLOR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
