"""The configuration: one YAML file, every key known, every error with its place and the way out."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from csi_core.config_source import Source, explain
from csi_core.errors import ConfigError
from csi_core.router import BACKEND_NAME, MAX_BACKEND_NAME_BYTES

__all__ = [
    "BackendConfig",
    "Config",
    "DriverConfig",
    "LogConfig",
    "MetricsConfig",
    "NodeConfig",
    "ServerConfig",
    "WrapperConfig",
    "check_options",
    "load_config",
    "parse_config",
    "socket_path",
]

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DRIVER_NAME = re.compile(rf"(?=[A-Za-z].{{0,62}}$){_LABEL}(?:\.{_LABEL})*(?<=[A-Za-z])")
_MAX_SOCKET_PATH_BYTES = 107
_MAX_NODE_ID_BYTES = 256


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, validate_default=True
    )


def _driver_name(name: str) -> str:
    if not _DRIVER_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no driver name; write a domain of at most 63 characters that begins and ends with a letter, "
            f"like loop.csi.example.com"
        )
    return name


def _backend_name(name: str) -> str:
    if not BACKEND_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for a backend: it has at most {MAX_BACKEND_NAME_BYTES} lower-case letters, digits "
            f"and dashes, because every volume id begins with it"
        )
    return name


def _node_id(node_id: str) -> str:
    if not 0 < len(node_id.encode()) <= _MAX_NODE_ID_BYTES:
        raise ValueError(f"a node id has 1 to {_MAX_NODE_ID_BYTES} bytes")
    return node_id


def socket_path(endpoint: str) -> Path:
    """The path of a ``unix://`` endpoint.

    Raises:
        ValueError: it is none.
    """
    path = endpoint.removeprefix("unix://")
    if path == endpoint or not path.startswith("/"):
        raise ValueError(f"{endpoint!r} is no endpoint; write unix:///run/csi-core/csi.sock")
    if len(path.encode()) > _MAX_SOCKET_PATH_BYTES:
        raise ValueError(f"the path of a socket has at most {_MAX_SOCKET_PATH_BYTES} bytes, {path!r} is longer")
    return Path(path)


def _endpoint(endpoint: str) -> str:
    socket_path(endpoint)
    return endpoint


def _socket_mode(text: object) -> object:
    # YAML reads 0600 as octal and 600 as decimal: only a string says what was meant.
    if not isinstance(text, str) or not re.fullmatch(r"0?[0-7]{3}", text):
        raise ValueError('write it in quotes, like "0600"')
    return text


def _listen(address: str) -> str:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is no address to listen on; write 127.0.0.1:9808")
    return address


class DriverConfig(_Section):
    """Who this driver is and where it listens."""

    name: Annotated[str, AfterValidator(_driver_name)] = Field(
        description="Name of the CSI driver: a domain, at most 63 characters, beginning and ending with a letter."
    )
    node_id: Annotated[str, AfterValidator(_node_id)] = Field(
        default_factory=lambda: os.environ.get("NODE_NAME") or socket.gethostname(),
        description="Name of this node. Default: $NODE_NAME, else the host's name.",
    )
    endpoint: Annotated[str, AfterValidator(_endpoint)] = Field(
        default_factory=lambda: os.environ.get("CSI_ENDPOINT") or "unix:///run/csi-core/csi.sock",
        description="Unix socket to listen on. Default: $CSI_ENDPOINT, else unix:///run/csi-core/csi.sock.",
    )
    socket_mode: Annotated[str, BeforeValidator(_socket_mode)] = Field(
        default="0600", description="Permissions of the socket, octal, in quotes."
    )
    alpha_capabilities: bool = Field(
        default=False,
        description="Advertise what is alpha in CSI 1.13 (volume and storage health); older sidecars do not know it.",
    )

    @property
    def socket_path(self) -> Path:
        """Where the socket lies."""
        return socket_path(self.endpoint)

    @property
    def socket_mode_bits(self) -> int:
        """The permissions as ``os.chmod`` takes them."""
        return int(self.socket_mode, 8)


class ServerConfig(_Section):
    """How many calls are served at once."""

    workers: int = Field(default=32, ge=1, le=1024, description="Calls that work in backends at the same time.")
    queued: int = Field(default=256, ge=0, le=65536, description="Calls that wait for a worker; more are UNAVAILABLE.")
    shutdown_grace_seconds: float = Field(
        default=30.0, ge=0, description="How long calls may take to end after SIGTERM, in seconds."
    )


class LogConfig(_Section):
    """What is logged, to standard error."""

    format: Literal["json", "console"] = Field(default="json", description="JSON for machines, console for people.")
    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Lowest level logged.")


class MetricsConfig(_Section):
    """Prometheus metrics over HTTP."""

    listen: Annotated[str, AfterValidator(_listen)] = Field(description="host:port to serve /metrics on.")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


class NodeConfig(_Section):
    """How volumes are mounted on this node."""

    mounts: Literal["kernel", "simulated"] = Field(
        default="kernel", description="simulated needs no root and mounts nothing: for tests and demonstrations."
    )


class WrapperConfig(_Section):
    """An object around a backend's hooks (entry points ``csi_core.wrappers``)."""

    type: str = Field(description="Name of the wrapper's entry point.")
    options: dict[str, Any] = Field(default_factory=dict, description="The wrapper's own options.")


class BackendConfig(_Section):
    """One backend; its key is the name that begins the ids of its volumes, so never rename it."""

    type: str = Field(default="", description="Installed backend type. Default: the backend's key.")
    options: dict[str, Any] = Field(default_factory=dict, description="The backend's own options.")
    wrappers: tuple[WrapperConfig, ...] = Field(
        default=(), description="Objects around the backend's hooks; the first is the outermost."
    )


class Config(_Section):
    """The configuration of a csi-core server."""

    driver: DriverConfig
    server: ServerConfig = Field(default_factory=ServerConfig)
    log: LogConfig = Field(default_factory=LogConfig)
    metrics: MetricsConfig | None = Field(default=None, description="Left out: no metrics are served.")
    node: NodeConfig = Field(default_factory=NodeConfig)
    backends: dict[Annotated[str, AfterValidator(_backend_name)], BackendConfig] = Field(
        min_length=1, description="The backends, by name."
    )
    default_backend: str = Field(
        default="",
        description="Backend of StorageClasses without the parameter `backend`. May be left out with one backend.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        """``loop:`` with nothing after it means all defaults, and the type defaults to the key."""
        backends = given.get("backends") if isinstance(given, dict) else None
        if not isinstance(backends, dict):
            return given
        filled = {
            name: {"type": name, **(section or {})} if isinstance(section, dict | None) else section
            for name, section in backends.items()
        }
        named = given.get("defaultBackend") or (next(iter(filled)) if len(filled) == 1 else "")
        return {**given, "backends": filled, "defaultBackend": named}

    @field_validator("default_backend")
    @classmethod
    def _is_configured(cls, name: str, info: ValidationInfo) -> str:
        backends = info.data.get("backends", {})
        if backends and name not in backends:
            given = f"there is no backend {name!r}" if name else "missing, and there are several backends"
            raise ValueError(f"{given}; name one of {', '.join(backends)}")
        return name


def load_config(path: Path) -> Config:
    """Read and check a configuration file.

    Raises:
        ConfigError: it cannot be read or is wrong; one line a problem, with the line in the file, the key and the fix.
    """
    return parse_config(Source.read(path))


def parse_config(source: Source) -> Config:
    """Check a configuration that was read.

    Raises:
        ConfigError: as :func:`load_config`.
    """
    try:
        return Config.model_validate(source.content)
    except ValidationError as error:
        raise ConfigError(explain(error, Config, source)) from None


def check_options(source: Source, name: str, model: type[BaseModel], options: Mapping[str, object]) -> None:
    """Check a backend's options against its model.

    Raises:
        ConfigError: as :func:`load_config`, with the keys below ``backends.<name>.options``.
    """
    try:
        model.model_validate(options)
    except ValidationError as error:
        raise ConfigError(explain(error, model, source, ("backends", name, "options"))) from None
