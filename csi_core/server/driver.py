"""What every servicer works with: the configured backends, the locks, and who this driver is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from csi_core import __version__
from csi_core.errors import NotFound, Unavailable, Unsupported
from csi_core.locks import Key, KeyedLocks
from csi_core.model import Reach
from csi_core.router import join_id
from csi_core.server.topology import NodeTopology

if TYPE_CHECKING:
    from csi_core.capabilities import Capabilities
    from csi_core.facade import Backend
    from csi_core.model import Snapshot, Volume
    from csi_core.runtime import Runtime

__all__ = [
    "Driver",
    "existing_snapshot",
    "existing_volume",
    "name_key",
    "snapshot_key",
    "volume_key",
    "volume_name_key",
]

_CAPABILITIES: Final = {
    "ControllerPublishVolume": ("controller", "PUBLISH_UNPUBLISH_VOLUME"),
    "ControllerUnpublishVolume": ("controller", "PUBLISH_UNPUBLISH_VOLUME"),
    "GetCapacity": ("controller", "GET_CAPACITY"),
    "CreateSnapshot": ("controller", "CREATE_DELETE_SNAPSHOT"),
    "DeleteSnapshot": ("controller", "CREATE_DELETE_SNAPSHOT"),
    "GetSnapshot": ("controller", "GET_SNAPSHOT"),
    "ListSnapshots": ("controller", "LIST_SNAPSHOTS"),
    "ControllerExpandVolume": ("controller", "EXPAND_VOLUME"),
    "ControllerModifyVolume": ("controller", "MODIFY_VOLUME"),
    "ControllerGetVolumeHealth": ("controller", "GET_VOLUME_HEALTH"),
    "ControllerListVolumeHealth": ("controller", "LIST_VOLUME_HEALTH"),
    "NodeExpandVolume": ("node", "EXPAND_VOLUME"),
    "NodeGetVolumeHealth": ("node", "GET_VOLUME_HEALTH"),
    "NodeGetStorageHealth": ("node", "GET_STORAGE_HEALTH"),
    "CreateVolumeGroupSnapshot": ("group", "CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT"),
    "DeleteVolumeGroupSnapshot": ("group", "CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT"),
    "GetVolumeGroupSnapshot": ("group", "CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT"),
    "GetMetadataAllocated": ("plugin", "SNAPSHOT_METADATA_SERVICE"),
    "GetMetadataDelta": ("plugin", "SNAPSHOT_METADATA_SERVICE"),
}
"""The calls that a driver need not serve: the capability that says whether it does, and where it is advertised."""
_ALPHA: Final = frozenset(call for call in _CAPABILITIES if call.endswith("Health"))
_ON_THE_NODE: Final = {
    "ControllerPublishVolume": "NodeStageVolume is all that makes them usable",
    "ControllerUnpublishVolume": "NodeUnstageVolume is all that ends their use",
    "ControllerExpandVolume": "grow by NodeExpandVolume",
}


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
        """Refuse a call whose capability is not advertised: a CO that makes it nevertheless counts on what is not so.

        Raises:
            Unsupported: names the hook that a backend would have to implement, or what else is missing.
        """
        if not self.alpha and call in _ALPHA:
            raise Unsupported(f"{call} is alpha in CSI 1.13; set driver.alphaCapabilities: true to have it served")
        if not any(hook in backend.hooks for backend in self.router.all):
            names = ", ".join(backend.name for backend in self.router.all)
            raise Unsupported(f"{call} is not served: no backend here ({names}) implements the hook {hook!r}")
        service, capability = _CAPABILITIES[call]
        try:
            advertised = self.capabilities
        except Unavailable:
            return  # nobody knows yet; the backend itself refuses what comes before it has started
        if capability in getattr(advertised, service):
            return
        if advertised.reach is Reach.NODE_LOCAL and call in _ON_THE_NODE:
            raise Unsupported(f"{call} is not served: volumes here are node-local, and {_ON_THE_NODE[call]}")
        raise Unsupported(f"{call} is not served: this driver does not advertise {capability}")


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


def volume_name_key(name: str) -> Key:
    """The lock of a name that a volume is being made under: the parameters that choose its backend may have changed."""
    return Key("volume name", name)


def name_key(kind: str, backend: Backend, name: str) -> Key:
    """The lock of a name that a "snapshot" or "group" is being made under; its sources choose the backend."""
    return Key(f"{kind} name", (backend.name, name))
