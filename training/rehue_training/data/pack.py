"""Photographs made small and packed into tars, to carry them to the machine that trains.

Every tar is a cross-section of all sources, so training can start with any of them.
"""

import io
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath

import cv2

from rehue_training.data import dataset
from rehue_training.data.files import read_files
from rehue_training.errors import InputError


def pack_photographs(
    paths: Sequence[Path], folder: Path, *, pieces: int, short_side: int, quality: int
) -> tuple[list[Path], dataset.Report]:
    """Write the usable photographs under `paths` as WebP, in turn into `pieces` tars.

    Args:
        folder: the tars are `pack-00.tar` and so on; each is renamed into place at the end.
        short_side: pixels; smaller photographs keep their size.
        quality: of WebP, 1..100.

    Returns:
        The tars, and how many photographs were kept and skipped.

    Raises:
        InputError: a number is out of range, or none of the pictures can be used; or see
            `files.read_files`.
    """
    if pieces < 1 or short_side < dataset.MIN_SIDE or not 1 <= quality <= 100:
        raise InputError(
            f"pack: pieces must be at least 1, the short side at least {dataset.MIN_SIDE} pixels, "
            "the quality 1 to 100"
        )
    folder.mkdir(parents=True, exist_ok=True)
    tars = [folder / f"pack-{number:02d}.tar" for number in range(pieces)]
    report = dataset.Report()
    encode = partial(_encode_small, short_side=short_side, quality=quality, report=report)
    pictures = read_files(paths)
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        archives = [
            stack.enter_context(tarfile.open(path.with_suffix(".new"), "w")) for path in tars
        ]
        while chunk := list(islice(pictures, dataset.DECODE_BATCH)):
            for (name, _), encoded in zip(chunk, pool.map(encode, chunk), strict=True):
                if encoded is not None:
                    _add_member(archives[report.kept % pieces], name, encoded)
                    report.kept += 1
    if not report.kept:
        raise InputError(f"no usable photographs: {report}")
    for path in tars:
        path.with_suffix(".new").replace(path)
    return tars, report


def _encode_small(
    picture: tuple[str, bytes], *, short_side: int, quality: int, report: dataset.Report
) -> bytes | None:
    rgb = dataset.decode_usable(*picture, report)
    if rgb is None:
        return None
    small = cv2.cvtColor(dataset.shrink(rgb, short_side), cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".webp", small, [cv2.IMWRITE_WEBP_QUALITY, quality])
    return encoded.tobytes()


def _add_member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a photograph; its name keeps the source, by which training balances."""
    member = tarfile.TarInfo(str(PurePosixPath(name).with_suffix(".webp")))
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
