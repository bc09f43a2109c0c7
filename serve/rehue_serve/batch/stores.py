"""Folders and object stores: list, read and write files by their locations.

A location is a path or a URL such as ``s3://bucket/folder/a.jpg``. Errors are OSErrors:
FileNotFoundError, PermissionError, or another one that may be temporary.
"""

import contextlib
import errno
import fcntl
import mimetypes
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

FOLDER = ".rehue"  # in the target: the manifest, the report and unfinished files
UNFINISHED = "unfinished"  # in FOLDER: pictures that are being written

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # nothing can be written any more

# Modules behind fsspec's protocols, and the extra that installs each.
EXTRAS = {"gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
CONTENT_TYPES = {"s3": "ContentType", "s3a": "ContentType", "gs": "content_type"}  # arguments
CREDENTIAL_ERRORS = ("NoCredentialsError", "PartialCredentialsError", "ClientAuthenticationError")
# Entries of an object's description that change with its content, the best first.
VERSIONS = ("ETag", "etag", "md5Hash", "generation", "LastModified", "updated", "mtime", "modified")


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
    return ObjectStore(protocol) if protocol else LocalStore()


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


def join(folder: str, name: str) -> str:
    """Return the location of a name below a folder or prefix."""
    return f"{folder.rstrip('/')}/{name}"


def describe_os_error(error: OSError) -> str:
    """Return a sentence without the error's number."""
    if error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    return error.strerror or str(error) or type(error).__name__


@contextlib.contextmanager
def hold_target(target: str) -> Iterator[bool]:
    """Claim a target for one job, and remove what a killed one left unfinished.

    Yields:
        Whether no other job of this machine, or of one with the same file server, has it.
        Object stores have no locks: there it is always True.
    """
    if not is_local(target):
        yield True
        return
    folder = Path(target, FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
        yield True


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


class ObjectStore:
    """An object store that fsspec reads; endpoint and credentials come from its environment."""

    def __init__(self, protocol: str) -> None:
        import fsspec

        self._protocol = protocol
        with _translate_errors(protocol):
            # A cached listing would hide changes and grow with the number of objects.
            self._files = fsspec.filesystem(protocol, use_listings_cache=False)

    def list_files(self, folder: str) -> Iterator[StoredFile]:
        root = self._strip(folder).rstrip("/") + "/"
        with _translate_errors(self._protocol):
            for info in self._iterate(root):
                name = info["name"].removeprefix(root)
                is_hidden = any(part.startswith(".") for part in name.split("/"))
                if info.get("type") != "directory" and name and not is_hidden:
                    yield _describe_object(name, info)

    def describe(self, location: str) -> StoredFile:
        with _translate_errors(self._protocol):
            return _describe_object(location, self._files.info(self._strip(location)))

    def read(self, location: str) -> bytes:
        with _translate_errors(self._protocol):
            return bytes(self._files.cat_file(self._strip(location)))

    def write(self, location: str, data: bytes, root: str) -> None:
        del root  # an object appears when all of it is there
        kind = mimetypes.guess_type(location)[0]
        name = CONTENT_TYPES.get(self._protocol)
        values = {name: kind} if name and kind else {}
        with _translate_errors(self._protocol):
            self._files.pipe_file(self._strip(location), data, **values)

    def delete(self, location: str) -> None:
        with _translate_errors(self._protocol), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._strip(location))

    def _strip(self, location: str) -> str:
        return str(self._files._strip_protocol(location))

    def _iterate(self, root: str) -> Iterator[dict[str, Any]]:
        if hasattr(self._files, "_iterdir"):  # S3: page by page, in the order of the keys
            bucket, _, prefix = root.partition("/")
            pages = self._files._iterdir(bucket, delimiter="", prefix=prefix)
            yield from _iterate_in_loop(pages, self._files.loop)
            return
        for _, _, files in self._files.walk(root, detail=True):
            yield from (files[name] for name in sorted(files))


def _iterate_in_loop(items: AsyncIterator[dict[str, Any]], loop: Any) -> Iterator[dict[str, Any]]:
    """Iterate over an asynchronous iterator that belongs to fsspec's event loop."""
    import fsspec.asyn

    async def get_next() -> dict[str, Any] | None:
        return await anext(items, None)

    while (item := fsspec.asyn.sync(loop, get_next)) is not None:
        yield item


def _describe_object(name: str, info: dict[str, Any]) -> StoredFile:
    version = next((info[key] for key in VERSIONS if info.get(key)), "")
    return StoredFile(name, int(info["size"] or 0), str(version).strip('"'))


@contextlib.contextmanager
def _translate_errors(protocol: str) -> Iterator[None]:
    """Raise the errors of stores' packages as OSErrors."""
    try:
        yield
    except (OSError, GeneratorExit):
        raise
    except ImportError as error:
        package = EXTRAS.get(protocol)
        hint = f": pip install '.[{package}]' in the repository" if package else ""
        raise StoreError(f"{protocol}:// needs a package that is missing ({error}){hint}") from None
    except ValueError as error:  # fsspec's for a protocol that it does not know
        raise StoreError(f"{protocol}://: {error}") from None
    except Exception as error:  # every store's package has exceptions of its own
        if type(error).__name__ in CREDENTIAL_ERRORS:
            raise PermissionError(f"{protocol}:// has no credentials ({error})") from error
        raise StoreError(f"{type(error).__name__}: {error}") from error
