"""Python client of Rehue, which colorizes black-and-white photographs.

>>> from rehue_client import Client
>>> with Client("grpc://127.0.0.1:9000") as client:
...     client.colorize("1912.jpg").save("1912-colour.jpg")
"""

from importlib.metadata import PackageNotFoundError, version

from rehue_client.async_client import AsyncClient
from rehue_client.client import Client
from rehue_client.edits import Edits, Hint
from rehue_client.errors import (
    DeadlineExceeded,
    ImageTooLarge,
    Internal,
    InvalidImage,
    InvalidParameter,
    NotServing,
    Overloaded,
    ProtocolError,
    RehueError,
    RequestError,
    ServiceError,
    SourceError,
    Unauthenticated,
    Unavailable,
    UnknownModel,
    UnsupportedImage,
)
from rehue_client.picture import FORMATS, Candidate, Model, Picture, Result, Timings
from rehue_client.retries import Retries
from rehue_client.sources import Source
from rehue_client.target import Tls

try:
    __version__ = version("rehue-client")  # the client alone: clients/pyproject.toml
except PackageNotFoundError:
    __version__ = version("rehue")

__all__ = [
    "FORMATS",
    "AsyncClient",
    "Candidate",
    "Client",
    "DeadlineExceeded",
    "Edits",
    "Hint",
    "ImageTooLarge",
    "Internal",
    "InvalidImage",
    "InvalidParameter",
    "Model",
    "NotServing",
    "Overloaded",
    "Picture",
    "ProtocolError",
    "RehueError",
    "RequestError",
    "Result",
    "Retries",
    "ServiceError",
    "Source",
    "SourceError",
    "Timings",
    "Tls",
    "Unauthenticated",
    "Unavailable",
    "UnknownModel",
    "UnsupportedImage",
    "__version__",
]
