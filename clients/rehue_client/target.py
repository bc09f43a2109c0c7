"""Server addresses and TLS options."""

import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from urllib.parse import urlsplit

HAS_GRPC = find_spec("grpc") is not None  # the extra `grpc`, more than the rest of the client
# The server's default ports.
DEFAULT_TARGET = "grpc://127.0.0.1:9000" if HAS_GRPC else "http://127.0.0.1:8000"
DEFAULT_PORTS = {"grpc": 9000, "grpcs": 443, "http": 80, "https": 443}


def read_targets_from_environment() -> list[str]:
    """Return the addresses in REHUE_SERVER, separated by commas or spaces, or the default."""
    urls = re.split(r"[,\s]+", os.environ.get("REHUE_SERVER", ""))
    return [url for url in urls if url] or [DEFAULT_TARGET]


@dataclass(frozen=True)
class Target:
    """The address of one server.

    >>> Target.parse("grpc://photos.example:9000")
    Target(scheme='grpc', host='photos.example', port=9000, path='')
    """

    scheme: str
    host: str
    port: int
    path: str = ""

    @classmethod
    def parse(cls, url: str) -> "Target":
        """Parse a URL.

        Raises:
            ValueError: the scheme is unknown, the host is missing, the URL has
                credentials, a query, or (gRPC) a path, or gRPC is not installed.
        """
        parts = urlsplit(url)
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname or parts.username or parts.query:
            raise ValueError(
                f"{url!r} is not a server address: expected {'://, '.join(DEFAULT_PORTS)}://HOST:PORT"
            )
        path = parts.path.rstrip("/")
        if path and parts.scheme.startswith("grpc"):
            raise ValueError(f"{url!r}: a gRPC address has no path")
        if parts.scheme.startswith("grpc") and not HAS_GRPC:
            raise ValueError(f"{url!r} needs gRPC: pip install grpcio, or use http:// or https://")
        return cls(parts.scheme, parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme], path)

    @property
    def uses_grpc(self) -> bool:
        return self.scheme.startswith("grpc")

    @property
    def uses_tls(self) -> bool:
        return self.scheme in ("grpcs", "https")

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


@dataclass(frozen=True)
class Tls:
    """Paths of PEM files for ``grpcs://`` and ``https://``.

    Args:
        ca: certificate authorities to trust. Default: the public ones.
        certificate: client certificate, for servers that require one.
        key: private key of ``certificate``.

    Raises:
        ValueError: only one of ``certificate`` and ``key`` is set.
    """

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a TLS client certificate needs its key, and a key its certificate")
