"""Backends and wrappers that are installed, found through entry points and imported only when configured.

A plugin class may have the attribute ``options_model``, a pydantic model of its ``options``. The core then checks the
options before the plugin is made, and ``csi-core config schema`` and ``config check`` know them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import BaseModel, ValidationError

from csi_core.contract import nearest
from csi_core.errors import ConfigError, CsiCoreError, PluginError
from csi_core.parameters import explain

__all__ = ["InstalledBackend", "installed", "load_factory", "load_plugin", "load_wrapper", "options_model"]

_BACKENDS = "csi_core.backends"
_WRAPPERS = "csi_core.wrappers"
_BUILT_IN = frozenset({"loop", "lvm", "nfs", "sim"})
_THIS_DISTRIBUTION = "csi-core"


@dataclass(frozen=True, slots=True)
class InstalledBackend:
    """A backend type that a configuration can name; ``entry_point`` is ``module:attribute``."""

    name: str
    distribution: str
    version: str
    entry_point: str


def installed() -> tuple[InstalledBackend, ...]:
    """Every installed backend type, by name. Imports none of them.

    A name that two distributions claim appears twice; loading it is refused.
    """
    found = [
        InstalledBackend(point.name, _distribution(point), point.dist.version if point.dist else "", point.value)
        for point in entry_points(group=_BACKENDS)
    ]
    return tuple(sorted(found, key=lambda backend: (backend.name, backend.distribution)))


def load_factory(type_name: str) -> Any:
    """Import the factory of a backend type.

    Raises:
        PluginError: it is not installed, claimed twice, or cannot be imported.
    """
    return _load(_BACKENDS, "backend", type_name)


def load_plugin(type_name: str, options: Mapping[str, object]) -> object:
    """Import a backend type and make a plugin of it.

    Args:
        type_name: the entry point's name.
        options: the backend's own section of the configuration.

    Raises:
        PluginError: it is not installed, claimed twice, cannot be imported, or its factory failed.
        ConfigError: the options are wrong.
    """
    return _make("backend", type_name, load_factory(type_name), options)


def load_wrapper(type_name: str, options: Mapping[str, object]) -> object:
    """The same for a wrapper, from the entry points ``csi_core.wrappers``."""
    return _make("wrapper", type_name, _load(_WRAPPERS, "wrapper", type_name), options)


def options_model(factory: object) -> type[BaseModel] | None:
    """The model of a plugin's options, where its class has one."""
    model = getattr(factory, "options_model", None)
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def _load(group: str, kind: str, type_name: str) -> Any:
    points = [point for point in entry_points(group=group) if point.name == type_name]
    if not points:
        raise PluginError(_missing(group, kind, type_name))
    if len(points) > 1:
        owners = " and ".join(sorted(_distribution(point) for point in points))
        raise PluginError(f"the {kind} type {type_name!r} is installed twice, by {owners}; uninstall one of them")
    try:
        return points[0].load()
    except Exception as error:
        raise PluginError(
            f"the {kind} type {type_name!r} ({points[0].value}, from {_distribution(points[0])}) cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error


def _make(kind: str, type_name: str, factory: Any, options: Mapping[str, object]) -> object:
    model = options_model(factory)
    try:
        if model is not None:
            model.model_validate(options)
        return factory(options)
    except CsiCoreError:
        raise
    except ValidationError as error:
        known = [field.alias or name for name, field in model.model_fields.items()] if model else []
        raise ConfigError(explain(error, known, "option")) from None
    except Exception as error:
        raise PluginError(
            f"the {kind} type {type_name!r} could not be made from its options: {type(error).__name__}: {error}"
        ) from error


def _missing(group: str, kind: str, type_name: str) -> str:
    if kind == "backend" and type_name in _BUILT_IN:
        return f"the backend type {type_name!r} is not part of this installation; install the package csi-core anew"
    names = sorted({point.name for point in entry_points(group=group)})
    return (
        f"there is no {kind} type {type_name!r}{nearest(type_name, names)}; "
        f"installed: {', '.join(names) or 'none'}. If it is a package of its own: "
        f"pip install {_THIS_DISTRIBUTION}-{type_name}"
    )


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "an unknown package"
