"""Folders and object stores: list, read and write files by their locations.

A location is a path or a URL such as ``s3://bucket/folder/a.jpg``. Errors are OSErrors:
FileNotFoundError, PermissionError, or another one that may be temporary.
"""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

FOLDER = ".rehue"  # in the target: the manifest, the report and unfinished files
UNFINISHED = "unfinished"  # in FOLDER: pictures that are being written

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # nothing can be written any more


class StoreError(OSError):
    """A store's own error, as one sentence."""


@dataclass(frozen=True)
class StoredFile:
    """A file or object.

    Attributes:
        name: relative to what was listed, with ``/`` between folders.
        version: changes when the content does: an ETag or a modification time.
        problem: why a folder of this name cannot be listed.
    """

    name: str
    size: int  # bytes
    version: str
    problem: str = ""


class Store(Protocol):
    """What both kinds of store do."""

    def list_files(self, folder: str) -> Iterator[StoredFile]:
        """Yield all files below a folder in an order that is always the same.

        Names with the same beginning follow each other. Hidden files are left out.
        """

    def describe(self, location: str) -> StoredFile: ...
    def read(self, location: str) -> bytes: ...
    def write(self, location: str, data: bytes, root: str) -> None:
        """Write a file so that it is there whole or not at all.

        Args:
            root: folder or prefix that the location is below.
        """

    def delete(self, location: str) -> None: ...


def get_store(location: str) -> Store:
    """Return the store that holds a location, the same one for every location of a protocol.

    Raises:
        StoreError: this kind of store is unknown, or its package is not installed.
    """
    return _open_store("" if is_local(location) else location.partition("://")[0])


@cache
def _open_store(protocol: str) -> Store:
    if not protocol:
        return LocalStore()
    from rehue_serve.batch import object_stores

    return object_stores.open_store(protocol)


def is_local(location: str) -> bool:
    """Whether a location is a path."""
    return "://" not in location


def clean_location(location: str) -> str:
    """Return an absolute path, or a URL without a slash at its end."""
    if location.startswith("file://"):
        location = location.removeprefix("file://")
    if is_local(location):
        return os.path.abspath(location)  # noqa: PTH100  # keeps links as they are
    return location.rstrip("/")


def join_location(folder: str, name: str) -> str:
    """Return the location of a name below a folder or prefix."""
    return f"{folder.rstrip('/')}/{name}"


def describe_os_error(error: OSError) -> str:
    """Return a sentence without the error's number."""
    if error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    return error.strerror or str(error) or type(error).__name__


class LocalStore:
    """Files of this machine or of a file server that is mounted on every node."""

    def list_files(self, folder: str) -> Iterator[StoredFile]:
        yield from _walk(Path(folder), "")

    def describe(self, location: str) -> StoredFile:
        path = Path(location)
        return _describe_path(path.name, path.stat())

    def read(self, location: str) -> bytes:
        return Path(location).read_bytes()

    def write(self, location: str, data: bytes, root: str) -> None:
        unfinished = Path(root, FOLDER, UNFINISHED)
        unfinished.mkdir(parents=True, exist_ok=True)
        path = unfinished / uuid.uuid4().hex
        try:
            with path.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # else a power cut could leave an empty file
            Path(location).parent.mkdir(parents=True, exist_ok=True)
            path.replace(location)
        finally:
            path.unlink(missing_ok=True)

    def delete(self, location: str) -> None:
        Path(location).unlink(missing_ok=True)


def _walk(folder: Path, prefix: str) -> Iterator[StoredFile]:
    """Yield a folder's own files, then those of its folders; links to folders are left out."""
    folders = []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        if not prefix:
            raise
        yield StoredFile(prefix, 0, "", problem=f"cannot list {folder}: {error.strerror}")
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            folders.append(entry.name)
            continue
        with contextlib.suppress(FileNotFoundError):  # a broken link, or deleted meanwhile
            if entry.is_file():
                yield _describe_path(prefix + entry.name, entry.stat())
    for name in folders:
        yield from _walk(folder / name, f"{prefix}{name}/")


def _describe_path(name: str, status: os.stat_result) -> StoredFile:
    return StoredFile(name, status.st_size, str(status.st_mtime_ns))
