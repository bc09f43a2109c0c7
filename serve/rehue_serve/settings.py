"""Every setting of the server: the one place that reads the environment."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Port = Annotated[int, Field(ge=1, le=65535)]


class SettingsError(ValueError):
    """A setting that cannot be used; the message names it and what is allowed."""


class Settings(BaseSettings):
    """Read from ``REHUE_*``; each field's description is the README's table."""

    model_config = SettingsConfigDict(env_prefix="REHUE_", frozen=True)

    host: str = Field("127.0.0.1", description="Address that HTTP and gRPC listen on.")
    http_port: Port = Field(8000, description="Port of HTTP.")
    grpc_port: Port = Field(9000, description="Port of gRPC.")
    metrics_port: Port = Field(
        9464, description="Port of Prometheus metrics; Ray owns it, on every node."
    )
    triton_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="gRPC addresses of Tritons, `host:port`, separated by commas; "
        "`dns:host:port` stands for every address that the name has, looked up again and again. "
        "Empty: start the embedded Triton.",
    )
    triton_threads: int = Field(
        0, ge=0, description="Threads of the embedded Triton's network; 0: one a core."
    )
    triton_calls: int = Field(
        2, ge=1, description="Calls under way to one Triton from one replica, at most."
    )
    shared_memory: bool = Field(
        False,
        description="Tensors go to Tritons at a loopback address through shared memory "
        "(`/dev/shm`, which both have to see, as the same user); to others in messages, as always.",
    )
    hedge: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Calls slower than this share of the last hundred, such as `0.95`, are made "
        "to a second Triton too, within the budget of retries; 0: none.",
    )
    model_repository: Path = Field(
        Path(__file__).parents[2] / "model_repository",
        description="Triton's model repository, for the embedded Triton.",
    )
    model: str = Field("rehue", min_length=1, description="Name of the default model.")
    max_bytes: int = Field(32 * 2**20, ge=1, description="Largest encoded photograph, in bytes.")
    max_pixels: int = Field(50_000_000, ge=1, description="Largest decoded photograph, in pixels.")
    max_requests: int = Field(
        64, ge=1, description="Photographs that one replica works on; more are refused."
    )
    timeout: float = Field(
        60.0, gt=0, le=3600, description="Longest time for one photograph, in seconds."
    )
    grace: float = Field(
        20.0, ge=0, le=3600, description="Time to finish what is under way at a stop, in seconds."
    )
    replicas: int = Field(1, ge=1, description="Colorizer processes to start.")
    threads: int = Field(
        0, ge=0, description="Threads of one replica for codecs and Lab; 0: one a core."
    )
    api_keys_file: Path | None = Field(
        None, description="File with one API key a line; empty: no key is asked for."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="`text` or `json`: log lines, one a request and one for each fault."
    )
    log_file: Path | None = Field(
        None,
        description="File or FIFO that every Colorizer appends its lines to (`/proc/1/fd/1`: a "
        "container's own output). Empty: the standard error of `rehue serve`.",
    )
    traces: Literal["none", "otlp"] = Field(
        "none",
        validation_alias="OTEL_TRACES_EXPORTER",
        description="`none` or `otlp`: spans of each photograph, over HTTP to "
        "`OTEL_EXPORTER_OTLP_ENDPOINT`; the other `OTEL_*` variables count as well.",
    )

    @field_validator("triton_urls", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("triton_urls")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            host, _, port = url.removeprefix("dns:").rpartition(":")
            if not host or "/" in host or not port.isdigit() or not 1 <= int(port) <= 65535:
                raise ValueError(f"{url!r} is not host:port or dns:host:port")
        return value

    @field_validator("api_keys_file", "log_file", mode="before")
    @classmethod
    def _empty(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("api_keys_file")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"{value} is not a file")
        return value

    @property
    def traces_url(self) -> str:
        """Where spans go, as OpenTelemetry's exporter finds it."""
        base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
        whole = f"{base.rstrip('/')}/v1/traces"
        return os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", whole)

    @property
    def work_threads(self) -> int:
        """Threads for codecs and Lab in one replica."""
        return self.threads or os.cpu_count() or 1


def load() -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: naming each wrong variable, its value and what is allowed.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"{_variable(str(item['loc'][0]))}={item['input']!s}: {item['msg']}"
            for item in error.errors()
        ]
        raise SettingsError("\n".join(lines)) from None


def _variable(name: str) -> str:
    """A field's variable in the environment: a standard one, or ours."""
    field = Settings.model_fields.get(name)
    if field is None:  # already the variable
        return name
    return str(field.validation_alias or f"REHUE_{name.upper()}")


def table() -> str:
    """The settings as a Markdown table, for the README."""
    rows = ["| Variable | Default | Meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, Path):
            default = default.name + "/"
        shown = "" if default in ((), None) else f"`{default}`"
        rows.append(f"| `{_variable(name)}` | {shown} | {field.description} |")
    return "\n".join(rows)
