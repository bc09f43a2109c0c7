"""S3: listed through s3fs, read and written through obstore, which is Rust.

With s3fs for all of it a job takes far more CPU for a photograph (docs/archives.md, Measured).
"""

import contextlib
import errno
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from threading import Lock
from typing import Any

import botocore.session
import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from rehue_serve.batch.object_stores import ObjectStore, guess_content_type
from rehue_serve.batch.stores import StoreError

CONNECT_TIMEOUT = timedelta(seconds=10)
READ_TIMEOUT = timedelta(seconds=60)  # without an answer, or the next bytes of one
MOST_RETRIES = 4  # in some seconds; the job itself retries for longer
LARGEST_PUT = 64 * 2**20  # bytes; what is larger goes in parts, and appears with the last one
PART = 16 * 2**20  # bytes
CREDENTIAL_LIFE = timedelta(minutes=5)  # of temporary ones, until botocore is asked again
# What obstore adds to a message: the key, the request and its attempts, a query, which may hold
# secrets, a duration, and the answer's body.
DETAILS = re.compile(
    r"^.*Error performing \w+ (?=http)|, after \d+ retries\b.*? (?=- )|\?\S*| in [\d.]+\S?s\b"
    r"|: *<\?xml.*|\n.*",
    re.DOTALL,
)


class S3Store(ObjectStore):
    """S3 and servers that are compatible with it."""

    def __init__(self, protocol: str) -> None:
        super().__init__(protocol)
        self._buckets: dict[str, Any] = {}
        self._opening = Lock()

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


def _can_take(key: str) -> bool:
    """Whether obstore takes a key; it refuses some, such as ``a//b.jpg``, that s3fs takes."""
    return key.isprintable() and not {"", ".", ".."}.intersection(key.split("/"))


@contextlib.contextmanager
def _translate_errors(location: str) -> Iterator[None]:
    """Raise obstore's errors as OSErrors."""
    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise PermissionError(_shorten(error)) from None
    except FileNotFoundError:
        what = "there is no such object or bucket"
        raise FileNotFoundError(errno.ENOENT, what, location) from None
    except BaseError as error:
        raise StoreError(_shorten(error)) from None


def _shorten(error: Exception) -> str:
    return DETAILS.sub("", str(error)).strip()
