"""Where a server is: ``grpc://host:port`` and its three sisters."""

from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULT = "grpc://127.0.0.1:9000"
PORTS = {"grpc": 9000, "grpcs": 443, "http": 80, "https": 443}


@dataclass(frozen=True)
class Target:
    """One address of a server.

    >>> Target.parse("grpc://photos.example:9000")
    Target(scheme='grpc', host='photos.example', port=9000, path='')
    """

    scheme: str
    host: str
    port: int
    path: str = ""

    @classmethod
    def parse(cls, url: str) -> "Target":
        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname or parts.username or parts.query:
            raise ValueError(f"{url!r} is no server: expected {'://, '.join(PORTS)}://HOST:PORT")
        path = parts.path.rstrip("/")
        if path and parts.scheme.startswith("grpc"):
            raise ValueError(f"{url!r}: a gRPC server has no path")
        return cls(parts.scheme, parts.hostname, parts.port or PORTS[parts.scheme], path)

    @property
    def speaks_grpc(self) -> bool:
        return self.scheme.startswith("grpc")

    @property
    def encrypted(self) -> bool:
        return self.scheme in ("grpcs", "https")

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


@dataclass(frozen=True)
class Tls:
    """Certificates in PEM files; with none, the usual public authorities count.

    Args:
        ca: whom to trust in place of the public authorities.
        certificate: our own certificate, where the server asks for one.
        key: its private key.
    """

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a TLS certificate and its key go together")
