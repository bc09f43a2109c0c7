"""API keys: who may use the server."""

import hmac
from pathlib import Path

from rehue_serve.errors import Unauthenticated


class ApiKeys:
    """The keys of a file with one key per line. A changed file is read again."""

    def __init__(self, path: Path | None) -> None:
        """
        Args:
            path: the file; None where no key is required.
        """
        self._path = path
        self._modified = 0.0
        self._keys: frozenset[bytes] = frozenset()

    def authenticate(self, authorization: str | None) -> None:
        """Check an ``Authorization`` header, ``Bearer KEY``, where keys are required.

        Raises:
            Unauthenticated: the key is missing or wrong.
        """
        if self._path is None:
            return
        modified = self._path.stat().st_mtime
        if modified != self._modified:
            lines = self._path.read_bytes().split(b"\n")
            self._keys = frozenset(line.strip() for line in lines if line.strip())
            self._modified = modified
        scheme, _, credentials = (authorization or "").partition(" ")
        key = credentials.strip().encode()
        if scheme.lower() != "bearer" or not key:
            raise Unauthenticated("Send an API key: Authorization: Bearer KEY.")
        # No early exit: the time taken reveals nothing about the keys.
        if not sum(hmac.compare_digest(key, known) for known in self._keys):
            raise Unauthenticated("This API key is not known.")
