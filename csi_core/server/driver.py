"""What every servicer works with: the configured backends, the locks, and who this driver is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_core import __version__
from csi_core.errors import NotFound, Unsupported
from csi_core.locks import Key, KeyedLocks
from csi_core.router import join_id
from csi_core.server.topology import NodeTopology

if TYPE_CHECKING:
    from csi_core.capabilities import Capabilities
    from csi_core.facade import Backend
    from csi_core.model import Snapshot, Volume
    from csi_core.runtime import Runtime

__all__ = ["Driver", "existing_snapshot", "existing_volume", "name_key", "snapshot_key", "volume_key"]


class Driver:
    """One driver: a name, a node and its backends, seen by the five services."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.name = runtime.config.driver.name
        self.version = __version__
        self.node_id = runtime.config.driver.node_id
        self.alpha = runtime.config.driver.alpha_capabilities
        self.router = runtime.router
        self.node = runtime.node
        self.locks = KeyedLocks()
        self.topology = NodeTopology(self.name, self.node_id)

    @property
    def ready(self) -> bool:
        """Whether every backend has started."""
        return self._runtime.ready

    @property
    def capabilities(self) -> Capabilities:
        """What this driver advertises.

        Raises:
            Unavailable: a backend has not started, so nobody knows yet.
        """
        return self._runtime.capabilities

    def require(self, hook: str, call: str) -> None:
        """Refuse a call that no backend here can serve.

        Raises:
            Unsupported: names the hook that a backend would have to implement.
        """
        if not any(hook in backend.hooks for backend in self.router.all):
            names = ", ".join(backend.name for backend in self.router.all)
            raise Unsupported(f"{call} is not served: no backend here ({names}) implements the hook {hook!r}")

    def require_alpha(self, call: str) -> None:
        """Refuse CSI 1.13's alpha calls unless they are switched on."""
        if not self.alpha:
            raise Unsupported(f"{call} is alpha in CSI 1.13; set driver.alphaCapabilities: true to have it served")


def existing_volume(backend: Backend, handle: str) -> Volume:
    """The volume of a handle.

    Raises:
        NotFound: there is none.
    """
    volume = backend.get_volume(handle)
    if volume is None:
        raise NotFound(f"there is no volume {join_id(backend.name, handle)!r}")
    return volume


def existing_snapshot(backend: Backend, handle: str) -> Snapshot:
    """The snapshot of a handle.

    Raises:
        NotFound: there is none.
    """
    snapshot = backend.get_snapshot(handle)
    if snapshot is None:
        raise NotFound(f"there is no snapshot {join_id(backend.name, handle)!r}")
    return snapshot


def volume_key(backend: Backend, handle: str) -> Key:
    """The lock of one volume."""
    return Key("volume", join_id(backend.name, handle))


def snapshot_key(backend: Backend, handle: str) -> Key:
    """The lock of one snapshot."""
    return Key("snapshot", join_id(backend.name, handle))


def name_key(kind: str, backend: Backend, name: str) -> Key:
    """The lock of a name that something is being made under; ``kind`` is "volume", "snapshot" or "group"."""
    return Key(f"{kind} name", (backend.name, name))
