"""Which backend a call is for: by the prefix of an id, or by the StorageClass parameter ``backend``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from csi_core.contract import nearest
from csi_core.errors import BackendNotLoaded, InvalidArgument, NotFound
from csi_core.facade import Backend
from csi_core.model import MAX_HANDLE_BYTES

__all__ = [
    "BACKEND_NAME",
    "BACKEND_PARAMETER",
    "MAX_BACKEND_NAME_BYTES",
    "MalformedId",
    "Router",
    "join_id",
    "split_id",
]

BACKEND_PARAMETER = "backend"
"""The StorageClass parameter that chooses a backend; the core takes it out before the backend sees the rest."""

MAX_BACKEND_NAME_BYTES = 128 - len("/") - MAX_HANDLE_BYTES
"""So that an id stays within the CSI's 128 bytes."""

BACKEND_NAME = re.compile(rf"(?=.{{1,{MAX_BACKEND_NAME_BYTES}}}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")

_HANDLE = re.compile(rf"(?!\.\.?$)[A-Za-z0-9._:-]{{1,{MAX_HANDLE_BYTES}}}")


class MalformedId(NotFound):
    """Not of the form ``<backend>/<handle>``, so no backend of ours ever gave it out."""


def join_id(backend_name: str, handle: str) -> str:
    """The CSI id of a backend's volume, snapshot or group."""
    return f"{backend_name}/{handle}"


def split_id(csi_id: str) -> tuple[str, str]:
    """The backend's name and the handle.

    Raises:
        MalformedId: it is none of ours.
    """
    backend_name, slash, handle = csi_id.partition("/")
    if not slash or not BACKEND_NAME.fullmatch(backend_name) or not _HANDLE.fullmatch(handle):
        raise MalformedId(f"nothing has the id {csi_id!r}: ids here have the form <backend>/<handle>")
    return backend_name, handle


class Router:
    """The configured backends.

    Args:
        backends: by configured name.
        default: the name of the one that serves StorageClasses without the parameter ``backend``.
    """

    def __init__(self, backends: Mapping[str, Backend], default: str) -> None:
        self._backends = dict(backends)
        self._default = self._backends[default]
        finding = [backend for backend in self._backends.values() if "find_volume" in backend.hooks]
        self._others = {name: tuple(b for b in finding if b.name != name) for name in self._backends}

    @property
    def all(self) -> tuple[Backend, ...]:
        """Every backend, in the order of the configuration."""
        return tuple(self._backends.values())

    def others_finding_names(self, backend: Backend) -> tuple[Backend, ...]:
        """Every backend but this one that finds volumes by name."""
        return self._others[backend.name]

    def by_id(self, csi_id: str) -> tuple[Backend, str]:
        """The backend and the handle of a volume, snapshot or group id.

        Raises:
            MalformedId: it is none of ours.
            BackendNotLoaded: it is well-formed, and its backend is not configured here.
        """
        backend_name, handle = split_id(csi_id)
        backend = self._backends.get(backend_name)
        if backend is None:
            raise BackendNotLoaded(
                f"{csi_id!r} belongs to the backend {backend_name!r}, which is not configured here "
                f"(configured: {', '.join(self._backends)})"
            )
        return backend, handle

    def by_parameters(self, parameters: Mapping[str, str]) -> tuple[Backend, dict[str, str]]:
        """The backend that StorageClass parameters choose, and the parameters that are left for it.

        Raises:
            InvalidArgument: no backend of that name is configured here.
        """
        rest = dict(parameters)
        backend_name = rest.pop(BACKEND_PARAMETER, None)
        if backend_name is None:
            return self._default, rest
        backend = self._backends.get(backend_name)
        if backend is None:
            hint = nearest(backend_name, self._backends) or f"; configured: {', '.join(self._backends)}"
            raise InvalidArgument(f"parameter {BACKEND_PARAMETER!r}: there is no backend {backend_name!r} here{hint}")
        return backend, rest

    def join_id(self, backend_name: str, handle: str) -> str:
        """The CSI id of a backend's volume, snapshot or group."""
        return join_id(backend_name, handle)
