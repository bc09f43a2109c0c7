"""The server's settings, read from `REHUE_*` environment variables.

Libraries read variables of their own: Ray's are set in `rehue_serve.server`, and
OpenTelemetry's (`OTEL_*`) are read by its SDK and by `rehue_serve.tracing`.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from rehue_serve.keys import read_keys

Port = Annotated[int, Field(ge=1, le=65535)]


class SettingsError(ValueError):
    """A setting is invalid; the message names it and what is allowed."""


class Settings(BaseSettings):
    """Read from ``REHUE_*``; the fields' descriptions are the table of docs/reference."""

    model_config = SettingsConfigDict(env_prefix="REHUE_", frozen=True)

    host: str = Field("127.0.0.1", description="Address on which HTTP and gRPC listen.")
    http_port: Port = Field(8000, description="HTTP port.")
    grpc_port: Port = Field(9000, description="gRPC port.")
    metrics_port: Port = Field(
        9464, description="Port of the Prometheus metrics, which Ray serves on every node."
    )
    triton_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="gRPC addresses of Tritons, `host:port`, separated by commas; "
        "`dns:host:port` stands for every address of that name, resolved periodically. "
        "Empty: start the embedded Triton.",
    )
    triton_threads: int = Field(
        0, ge=0, description="Inference threads of the embedded Triton; 0: one per core."
    )
    triton_calls: int = Field(
        2, ge=1, description="Limit of concurrent calls from one replica to one Triton."
    )
    shared_memory: bool = Field(
        False,
        description="Exchange tensors with Tritons at loopback addresses through shared memory "
        "(`/dev/shm`, which both must see as the same user); other Tritons get them in messages.",
    )
    hedge: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Repeat a call to a second Triton when it takes longer than this share of the "
        "last hundred calls, such as `0.95`; counts against the retry budget. 0: never.",
    )
    model_repository: Path = Field(
        Path(__file__).parents[2] / "model_repository",
        description="Model repository of the embedded Triton.",
    )
    model: str = Field("rehue", min_length=1, description="Name of the default model.")
    max_bytes: int = Field(
        1200 * 2**20,
        ge=1,
        description="Limit of an encoded photograph, in bytes. The default is enough for the "
        "largest photograph as uncompressed 16-bit RGB.",
    )
    max_pixels: int = Field(
        200_000_000, ge=1, description="Limit of a decoded photograph, in pixels."
    )
    max_requests: int = Field(
        64, ge=1, description="Photographs in flight in one replica; more are refused."
    )
    timeout: float = Field(
        60.0, gt=0, le=3600, description="Time limit for one photograph, in seconds."
    )
    grace: float = Field(
        20.0,
        ge=0,
        le=3600,
        description="Time to finish photographs in flight when stopping, in seconds.",
    )
    upload_rate: int = Field(
        4096,
        ge=1,
        description="Lowest rate at which a caller may send an upload or read an answer over HTTP, "
        "in bytes per second.",
    )
    upload_timeout: float = Field(
        600.0,
        gt=0,
        le=3600,
        description="Time limit for the upload of one photograph over HTTP, in seconds; "
        "`REHUE_TIMEOUT` starts at its end.",
    )
    upload_memory: int = Field(
        1536 * 2**20,
        ge=1,
        description="Memory for the encoded photographs that one replica receives and holds, and "
        "for the answers that it sends over HTTP, in bytes; when it is used up, the slowest are "
        "ended. A photograph with more bytes is refused as too large. Answers over gRPC may take "
        "as much again.",
    )
    max_uploads: int = Field(
        1024, ge=1, description="Requests with bodies in progress in one replica; more are refused."
    )
    work_memory: int = Field(
        2**30,
        ge=1,
        description="Memory for decoding and encoding photographs in one replica, in bytes, as "
        "estimated from their headers; photographs that do not fit wait for others.",
    )
    edit_memory: int = Field(
        16 * 2**20,
        ge=0,
        description="Memory for the networks' outputs for edited photographs, in one replica, in "
        "bytes; each takes 64 KiB and is kept for five minutes, so that the next edit does not run "
        "the network. 0: none is kept.",
    )
    replicas: int = Field(1, ge=1, description="Colorizer processes to start.")
    threads: int = Field(
        0, ge=0, description="Threads of one replica for codecs and Lab; 0: one per core."
    )
    api_keys_file: Path | None = Field(
        None,
        description="File with one API key per line; lines that begin with `#` are comments. After "
        "a key may follow `name=NAME` of its holder and, with it, `rate=` photographs per second "
        "and `daily=` photographs per day (UTC), counted by each replica. The file is read again "
        "within a second of a change. While it is missing, unreadable, wrong or without keys, the "
        "keys read last stay valid. Empty: no key is required.",
    )
    max_requests_per_key: int = Field(
        0,
        ge=0,
        description="Photographs in flight in one replica with the same API key; more are refused. "
        "0: three quarters of `REHUE_MAX_REQUESTS`, so that no key can take every place.",
    )
    c2pa_certificates: Path | None = Field(
        None,
        description="PEM file with the certificates that pictures are signed with (C2PA), the "
        "signer's own first; read at start; needs the extra `c2pa`. Empty: pictures are not "
        "signed.",
    )
    c2pa_key: Path | None = Field(
        None,
        validate_default=True,
        description="PEM file with the private key of the first of those certificates, without a "
        "password.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins, `https://host`, separated by commas, whose pages may use the API; "
        "`*`: any. Empty: only pages of this server.",
    )
    log_format: Literal["text", "json"] = Field(
        "text",
        description="`text` or `json`: format of the log lines, one per request and one per fault.",
    )
    log_file: Path | None = Field(
        None,
        description="File or FIFO to which every Colorizer appends its log lines (`/proc/1/fd/1`: "
        "the container's output). Empty: the standard error of `rehue serve`.",
    )
    traces: Literal["none", "otlp"] = Field(
        "none",
        validation_alias="OTEL_TRACES_EXPORTER",
        description="`none` or `otlp`: export spans of each photograph over HTTP to "
        "`OTEL_EXPORTER_OTLP_ENDPOINT`; the other `OTEL_*` variables apply too.",
    )

    @field_validator("triton_urls", "cors_origins", mode="before")
    @classmethod
    def _split_list(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("triton_urls")
    @classmethod
    def _check_urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            host, _, port = url.removeprefix("dns:").rpartition(":")
            if not host or "/" in host or not port.isdigit() or not 1 <= int(port) <= 65535:
                raise ValueError(f"{url!r} is not host:port or dns:host:port")
        return value

    @field_validator("api_keys_file", "c2pa_certificates", "c2pa_key", "log_file", mode="before")
    @classmethod
    def _treat_empty_as_unset(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("api_keys_file")
    @classmethod
    def _check_keys_file(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"{value} is not a file")
        if value is not None and not read_keys(value):
            raise ValueError(f"{value} has no keys")
        return value

    @field_validator("c2pa_key")
    @classmethod
    def _check_signing(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        certificates = info.data.get("c2pa_certificates")
        if (value is None) != (certificates is None):
            raise ValueError("REHUE_C2PA_CERTIFICATES and REHUE_C2PA_KEY must be set together")
        if value is not None and certificates is not None:
            from rehue_serve.metadata.credentials import Signer  # with what signs, where it does

            Signer(certificates, value)
        return value

    @property
    def traces_url(self) -> str:
        """URL that spans are sent to, chosen as OpenTelemetry's own exporter does."""
        base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
        default = f"{base.rstrip('/')}/v1/traces"
        return os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", default)

    @property
    def byte_limit(self) -> int:
        """Limit of an encoded photograph over HTTP and gRPC, in bytes: what can be received."""
        return min(self.max_bytes, self.upload_memory)

    @property
    def key_limit(self) -> int:
        """Number of photographs in flight with the same API key in one replica."""
        return self.max_requests_per_key or max(1, self.max_requests * 3 // 4)

    @property
    def work_threads(self) -> int:
        """Number of threads for codecs and Lab in one replica."""
        return self.threads or os.cpu_count() or 1


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: names each invalid variable, its value and what is allowed.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"{get_variable_name(str(item['loc'][0]))}={item['input']!s}: {item['msg']}"
            for item in error.errors()
        ]
        raise SettingsError("\n".join(lines)) from None


def get_variable_name(name: str) -> str:
    """Return the environment variable of a field: a standard one or a `REHUE_*` one."""
    field = Settings.model_fields.get(name)
    if field is None:  # `name` is the variable itself
        return name
    return str(field.validation_alias or f"REHUE_{name.upper()}")
