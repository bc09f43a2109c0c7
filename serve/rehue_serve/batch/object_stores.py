"""Object stores, through fsspec."""

import contextlib
import mimetypes
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

from rehue_serve.batch.stores import StoredFile, StoreError

# Modules behind fsspec's protocols, and the extra that installs each.
EXTRAS = {"gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
CONTENT_TYPES = {"s3": "ContentType", "s3a": "ContentType", "gs": "content_type"}  # arguments
CREDENTIAL_ERRORS = ("NoCredentialsError", "PartialCredentialsError", "ClientAuthenticationError")
QUERY = re.compile(r"\?[^\s\"]*")  # of a URL in a message
# Entries of an object's description that change with its content, the best first.
VERSIONS = ("ETag", "etag", "md5Hash", "generation", "LastModified", "updated", "mtime", "modified")


def open_store(protocol: str) -> "ObjectStore":
    """Open the stores of a protocol; endpoint and credentials come from the environment.

    Raises:
        StoreError: it is unknown, or its package is not installed.
    """
    if protocol not in ("s3", "s3a"):
        return ObjectStore(protocol)
    from rehue_serve.batch.s3 import S3Store

    return S3Store(protocol)


class ObjectStore:
    """An object store that fsspec reads; endpoint and credentials come from its environment."""

    def __init__(self, protocol: str) -> None:
        import fsspec

        self._protocol = protocol
        with translate_errors(protocol):
            # A cached listing would hide changes and grow with the number of objects.
            self._files = fsspec.filesystem(protocol, use_listings_cache=False)

    def list_files(self, folder: str) -> Iterator[StoredFile]:
        root = self._strip(folder).rstrip("/") + "/"
        with translate_errors(self._protocol):
            for info in self._iterate(root):
                name = info["name"].removeprefix(root)
                if info.get("type") != "directory" and name and not is_hidden(name):
                    yield _describe_object(name, info)

    def describe(self, location: str) -> StoredFile:
        with translate_errors(self._protocol):
            return _describe_object(location, self._files.info(self._strip(location)))

    def read(self, location: str) -> bytes:
        with translate_errors(self._protocol):
            return bytes(self._files.cat_file(self._strip(location)))

    def write(self, location: str, data: bytes, root: str) -> None:
        del root  # an object appears when all of it is there
        kind = guess_content_type(location)
        name = CONTENT_TYPES.get(self._protocol)
        values = {name: kind} if name and kind else {}
        with translate_errors(self._protocol):
            self._files.pipe_file(self._strip(location), data, **values)

    def delete(self, location: str) -> None:
        with translate_errors(self._protocol), contextlib.suppress(FileNotFoundError):
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


def is_hidden(name: str) -> bool:
    """Whether a file or one of its folders is hidden."""
    return any(part.startswith(".") for part in name.split("/"))


def guess_content_type(location: str) -> str:
    """Return an object's media type by its suffix, empty if that is unknown."""
    return mimetypes.guess_type(location)[0] or ""


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
def translate_errors(protocol: str) -> Iterator[None]:
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
        reason = f"{type(error).__name__}: {QUERY.sub('', str(error).partition(chr(10))[0])}"
        if "NotFound" in reason:  # of Azure
            raise FileNotFoundError(reason) from error
        raise StoreError(reason) from error
