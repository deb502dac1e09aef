"""The backends that ``csi-core backends`` shows: what is known of each without, or with, opening it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from csi_core import registry
from csi_core.capabilities import Capabilities, derive
from csi_core.cli.care import opened
from csi_core.config_check import load_checked_config
from csi_core.contract import declared_hooks
from csi_core.errors import CsiCoreError, PluginError
from csi_core.model import AccessMode, Description, VolumeMode
from csi_core.parameter_docs import key_docs, markdown_table

__all__ = ["Entry", "configured", "installed"]

_CONFIGURE_IT = "what it declares is known once it is configured: csi-core backends --config FILE"
_KUBERNETES = {
    AccessMode.SINGLE_NODE_WRITER: "ReadWriteOnce",
    AccessMode.SINGLE_NODE_MULTI_WRITER: "ReadWriteOnce",
    AccessMode.SINGLE_NODE_SINGLE_WRITER: "ReadWriteOncePod",
    AccessMode.MULTI_NODE_READER_ONLY: "ReadOnlyMany",
    AccessMode.MULTI_NODE_MULTI_WRITER: "ReadWriteMany",
}
_SERVICES = ("plugin", "controller", "node", "group")


@dataclass(frozen=True, slots=True)
class Entry:
    """One backend, installed or configured. ``description`` is None where only opening it would tell."""

    name: str
    type_name: str
    package: str
    hooks: frozenset[str] = frozenset()
    options: type[BaseModel] | None = None
    description: Description | None = None
    note: str = ""

    @property
    def heading(self) -> str:
        """Its name, and its type where that differs."""
        return self.name if self.name == self.type_name else f"{self.name} (type {self.type_name})"

    @property
    def capabilities(self) -> Capabilities | None:
        """Those of a driver with this backend alone."""
        if self.description is None:
            return None
        return derive([_Declared(self.name, self.hooks, self.description)], alpha=False)

    def access_modes(self) -> dict[VolumeMode, list[str]]:
        """What Kubernetes calls the access modes, for each volume mode."""
        access = self.description.access if self.description else {}
        return {
            volume_mode: list(
                dict.fromkeys(words for mode, words in _KUBERNETES.items() if mode in access[volume_mode])
            )
            for volume_mode in VolumeMode
            if volume_mode in access
        }

    def parameter_keys(self) -> list[str]:
        """The keys of a StorageClass."""
        return [doc.key for doc in key_docs(self.description.parameters)] if self.description else []

    def capability_names(self) -> dict[str, list[str]]:
        """The derived capabilities of each service, by CSI's names."""
        found = self.capabilities
        return {service: sorted(getattr(found, service)) for service in _SERVICES if found and getattr(found, service)}

    def models(self) -> dict[str, type[BaseModel]]:
        """Every model of keys, under a title for people."""
        models = {"Options in the configuration file": self.options} if self.options else {}
        description = self.description
        if description is not None:
            models["StorageClass parameters"] = description.parameters
            models["VolumeAttributesClass (mutable) parameters"] = description.mutable
            models["VolumeSnapshotClass parameters"] = description.snapshot_parameters
            models["Secrets"] = description.secrets
        return {title: model for title, model in models.items() if model.model_fields}

    def keys(self) -> dict[str, list[dict[str, Any]]]:
        """Every key of every model, with its type, default, allowed values and meaning."""
        return {title: [asdict(doc) for doc in key_docs(model)] for title, model in self.models().items()}

    def as_json(self) -> dict[str, Any]:
        """All there is to know, for programs."""
        known: dict[str, Any] = {
            "name": self.name,
            "type": self.type_name,
            "package": self.package,
            "hooks": sorted(self.hooks),
            "note": self.note,
            "keys": self.keys(),
        }
        description = self.description
        if description is not None:
            known |= {
                "summary": description.summary,
                "reach": description.reach.value,
                "access": {mode.value: sorted(m.value for m in modes) for mode, modes in description.access.items()},
                "filesystems": list(description.filesystems),
                "sources": sorted(kind.value for kind in description.sources),
                "ephemeral": description.ephemeral,
                "facts": dict(description.facts),
                "capabilities": self.capability_names(),
            }
        return known

    def as_markdown(self) -> str:
        """A heading and a table for each model."""
        return "\n".join(f"### {title}\n\n{markdown_table(model)}" for title, model in self.models().items())


@dataclass(frozen=True, slots=True)
class _Declared:
    name: str
    hooks: frozenset[str]
    description: Description


def installed() -> list[Entry]:
    """Every installed backend type, with what its class says."""
    return [_of_class(backend.name, backend.name) for backend in registry.installed()]


def configured(config_path: Path) -> list[Entry]:
    """The backends of a configuration, opened for a moment; where that cannot be, what their classes say.

    Raises:
        ConfigError, PluginError: the configuration is wrong.
    """
    config = load_checked_config(config_path)
    with ExitStack() as stack:
        try:
            started = stack.enter_context(opened(config_path))
        except (CsiCoreError, click.ClickException) as error:
            said = error.message if isinstance(error, click.ClickException) else str(error)
            return [_of_class(name, section.type, f"not opened: {said}") for name, section in config.backends.items()]
        return [
            Entry(
                name=backend.name,
                type_name=config.backends[backend.name].type,
                package=_package(config.backends[backend.name].type),
                hooks=backend.hooks,
                options=registry.options_model(registry.load_factory(config.backends[backend.name].type)),
                description=backend.description,
            )
            for backend in started
        ]


def _of_class(name: str, type_name: str, note: str = "") -> Entry:
    package = _package(type_name)
    try:
        factory = registry.load_factory(type_name)
    except PluginError as error:
        return Entry(name, type_name, package, note=str(error))
    declaration = getattr(factory, "declaration", None)
    description = declaration if isinstance(declaration, Description) else None
    return Entry(
        name=name,
        type_name=type_name,
        package=package,
        hooks=declared_hooks(factory) if isinstance(factory, type) else frozenset(),
        options=registry.options_model(factory),
        description=description,
        note=note or ("" if description else _CONFIGURE_IT),
    )


def _package(type_name: str) -> str:
    found: Mapping[str, str] = {b.name: f"{b.distribution} {b.version}" for b in registry.installed()}
    return found.get(type_name, "")
