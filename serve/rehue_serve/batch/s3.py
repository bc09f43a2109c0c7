"""S3: listed, read and written through obstore, which is Rust.

With s3fs a job takes far more CPU for a photograph (docs/archives.md, Measured). It stays for
keys that obstore refuses.
"""

import contextlib
import errno
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import PurePosixPath
from threading import Lock
from typing import Any

import botocore.session
import obstore
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    UnauthenticatedError,
)

from rehue_serve.batch.object_stores import ObjectStore, guess_content_type, is_hidden
from rehue_serve.batch.stores import StoredFile, StoreError

CONNECT_TIMEOUT = timedelta(seconds=10)
READ_TIMEOUT = timedelta(seconds=60)  # without an answer, or the next bytes of one
MOST_RETRIES = 4  # in some seconds; the job itself retries for longer
LARGEST_PUT = 64 * 2**20  # bytes; what is larger goes in parts, and appears with the last one
PART = 16 * 2**20  # bytes
PAGE = 1000  # objects of a listing at a time, as S3 sends them
CREDENTIAL_LIFE = timedelta(minutes=5)  # of temporary ones, until botocore is asked again
# What obstore adds to a message: the key, the request and its attempts, a query, which may hold
# secrets, a duration, and the answer's body.
DETAILS = re.compile(
    r"^.*Error performing \w+ (?=http)|^.*PermissionError: |Server returned non-2xx status code: "
    r"|, after \d+ retries\b.*? (?=- )|\?\S*| in [\d.]+\S?s\b|: *<.*|\n.*",
    re.DOTALL,
)


class OddKey(Exception):
    """A listing has a key that obstore does not take."""


class S3Store(ObjectStore):
    """S3 and servers that are compatible with it."""

    def __init__(self, protocol: str) -> None:
        super().__init__(protocol)
        self._buckets: dict[str, Any] = {}
        self._opening = Lock()

    def list_files(self, folder: str) -> Iterator[StoredFile]:
        bucket, key = self._split(folder)
        prefix = f"{key}/" if key else ""
        last = ""
        try:
            with _translate_errors(folder):
                for page in obstore.list(self._open(bucket), prefix or None, chunk_size=PAGE):
                    for entry in page:
                        last = entry["path"].removeprefix(prefix)
                        if not is_hidden(last) and not _is_folder(entry, prefix):
                            yield _describe(last, entry)
        except OddKey:  # the whole page failed
            yield from (file for file in super().list_files(folder) if file.name > last)

    def read(self, location: str) -> bytes:
        bucket, key = self._split(location)
        if not _can_take(key):
            return super().read(location)
        with _translate_errors(location):
            return bytes(obstore.get(self._open(bucket), key).bytes())

    def write(self, location: str, data: bytes, root: str) -> None:
        bucket, key = self._split(location)
        if not _can_take(key):
            super().write(location, data, root)
            return
        kind = guess_content_type(location)
        with _translate_errors(location):
            obstore.put(
                self._open(bucket), key, data, use_multipart=len(data) > LARGEST_PUT,
                chunk_size=PART, attributes={"Content-Type": kind} if kind else None,
            )  # fmt: skip

    def _split(self, location: str) -> tuple[str, str]:
        bucket, _, key = self._strip(location).partition("/")
        return bucket, key

    def _open(self, bucket: str) -> Any:
        with self._opening:
            if bucket not in self._buckets:
                self._buckets[bucket] = obstore.store.S3Store(
                    bucket, credential_provider=self._provide_credentials,
                    client_options={"allow_http": True, "connect_timeout": CONNECT_TIMEOUT,
                                    "read_timeout": READ_TIMEOUT, "timeout": timedelta(hours=1)},
                    retry_config={"max_retries": MOST_RETRIES}, **self._place,
                )  # fmt: skip
            return self._buckets[bucket]

    @cached_property
    def _session(self) -> Any:
        return botocore.session.get_session()

    @cached_property
    def _place(self) -> Any:
        """Endpoint and region as botocore, and so s3fs, finds them in variables and files."""
        meta = self._session.create_client("s3").meta
        return {"endpoint": meta.endpoint_url, "region": meta.region_name or "us-east-1"}

    def _provide_credentials(self) -> Any:
        credentials = self._session.get_credentials()
        if credentials is None:
            raise PermissionError("s3:// has no credentials")
        frozen = credentials.get_frozen_credentials()  # refreshes temporary ones
        expires = datetime.now(UTC) + CREDENTIAL_LIFE if frozen.token else None
        return {"access_key_id": frozen.access_key, "secret_access_key": frozen.secret_key,
                "token": frozen.token, "expires_at": expires}  # fmt: skip


def _is_folder(entry: Any, prefix: str) -> bool:
    """Whether an object stands for a folder: empty, its name ended with a slash."""
    path = entry["path"]
    return not path.startswith(prefix) or (not entry["size"] and not PurePosixPath(path).suffix)


def _describe(name: str, entry: Any) -> StoredFile:
    version = entry["e_tag"] or str(entry["last_modified"])
    return StoredFile(name, entry["size"], version.strip('"'))


def _can_take(key: str) -> bool:
    """Whether obstore takes a key; it refuses some, such as ``a//b.jpg``, that s3fs takes."""
    return key.isprintable() and not {"", ".", ".."}.intersection(key.split("/"))


@contextlib.contextmanager
def _translate_errors(location: str) -> Iterator[None]:
    """Raise obstore's errors as OSErrors, and OddKey."""
    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise PermissionError(_shorten(error)) from None
    except FileNotFoundError:
        what = "there is no such object or bucket"
        raise FileNotFoundError(errno.ENOENT, what, location) from None
    except InvalidPathError:
        raise OddKey from None
    except BaseError as error:
        # Listings raise no exception of their own for these.
        if "404 Not Found" in str(error):
            raise FileNotFoundError(errno.ENOENT, "there is no such bucket", location) from None
        if "403 Forbidden" in str(error):
            raise PermissionError(_shorten(error)) from None
        raise StoreError(_shorten(error)) from None


def _shorten(error: Exception) -> str:
    return DETAILS.sub("", str(error)).strip()
