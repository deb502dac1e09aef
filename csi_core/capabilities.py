"""CSI capabilities, derived: the hooks the backends implement x what they declare. Nothing is declared twice.

A server with several backends advertises what any of them can do; a call to one that cannot is UNIMPLEMENTED, and so
is a call that is not advertised at all, whatever hooks there are. The exceptions are promises about *every* volume, by
which the CO changes what it asks for: telling writers apart and delegating the fsGroup are advertised only where all
backends keep them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from csi_core.errors import ConfigError
from csi_core.model import Description, Reach, SourceKind

__all__ = ["Capabilities", "Declaring", "derive"]


class Declaring(Protocol):
    """What capabilities follow from; :class:`~csi_core.facade.Backend` is one."""

    @property
    def name(self) -> str:
        """The configured name."""

    @property
    def hooks(self) -> frozenset[str]:
        """The hooks it implements."""

    @property
    def description(self) -> Description:
        """What it declares."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The capabilities of each service, by CSI's enum names.

    ``plugin`` holds those of ``PluginCapability.Service`` and, as ``ONLINE`` or ``OFFLINE``, the one of
    ``PluginCapability.VolumeExpansion``. ``reach`` is that of all backends.
    """

    plugin: frozenset[str]
    controller: frozenset[str]
    node: frozenset[str]
    group: frozenset[str]
    reach: Reach


def derive(backends: Iterable[Declaring], alpha: bool) -> Capabilities:
    """What a server with these (started) backends advertises.

    Args:
        backends: all of one server's.
        alpha: whether to advertise what is alpha in CSI 1.13, which most deployed sidecars do not know.

    Raises:
        ConfigError: node-local and network backends are mixed.
        Unavailable: one has not been started yet.
    """
    all_backends = tuple(backends)
    facts = _Facts(all_backends, _common_reach(all_backends), alpha)
    return Capabilities(
        plugin=_chosen(_plugin(facts)),
        controller=_chosen(_controller(facts)),
        node=_chosen(_node(facts)),
        group=_chosen({"CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT": facts.implement("create_group_snapshot")}),
        reach=facts.reach,
    )


@dataclass(frozen=True, slots=True)
class _Facts:
    backends: tuple[Declaring, ...]
    reach: Reach
    alpha: bool

    def implement(self, hook: str) -> bool:
        return any(hook in backend.hooks for backend in self.backends)

    @property
    def local(self) -> bool:
        return self.reach is Reach.NODE_LOCAL

    @property
    def tell_writers_apart(self) -> bool:
        return all(backend.description.single_node_multi_writer for backend in self.backends)


def _plugin(facts: _Facts) -> dict[str, bool]:
    expanding = [backend for backend in facts.backends if "expand_volume" in backend.hooks]
    online = all(backend.description.online_expansion for backend in expanding)
    return {
        "CONTROLLER_SERVICE": True,
        "VOLUME_ACCESSIBILITY_CONSTRAINTS": facts.local,
        "GROUP_CONTROLLER_SERVICE": facts.implement("create_group_snapshot"),
        "SNAPSHOT_METADATA_SERVICE": facts.implement("allocated_blocks"),
        # Snapshots of network backends name no topology: that says "usable from everywhere".
        "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS": facts.alpha and facts.implement("create_snapshot"),
        "ONLINE": bool(expanding) and online,
        "OFFLINE": bool(expanding) and not online,
    }


def _controller(facts: _Facts) -> dict[str, bool]:
    # The attacher has no mode for one node: a node-local volume is made usable by NodeStageVolume alone.
    published = facts.implement("publish_volume") and not facts.local
    mutable = any("modify_volume" in b.hooks and b.description.mutable.model_fields for b in facts.backends)
    return {
        "CREATE_DELETE_VOLUME": True,
        "LIST_VOLUMES": True,
        "GET_VOLUME": True,
        "PUBLISH_UNPUBLISH_VOLUME": published,
        "PUBLISH_READONLY": published,
        "LIST_VOLUMES_PUBLISHED_NODES": published,
        "GET_CAPACITY": facts.implement("get_capacity"),
        "CREATE_DELETE_SNAPSHOT": facts.implement("create_snapshot"),
        "GET_SNAPSHOT": facts.implement("get_snapshot"),
        "LIST_SNAPSHOTS": facts.implement("list_snapshots"),
        "CLONE_VOLUME": any(SourceKind.VOLUME in b.description.sources for b in facts.backends),
        # The resizer has none: for node-local volumes kubelet calls NodeExpandVolume alone.
        "EXPAND_VOLUME": facts.implement("expand_volume") and not facts.local,
        "MODIFY_VOLUME": mutable,
        "SINGLE_NODE_MULTI_WRITER": facts.tell_writers_apart,
        "GET_VOLUME_HEALTH": facts.alpha and facts.implement("volume_health"),
        "LIST_VOLUME_HEALTH": facts.alpha and facts.implement("volume_health"),
    }


def _node(facts: _Facts) -> dict[str, bool]:
    return {
        "STAGE_UNSTAGE_VOLUME": True,
        "GET_VOLUME_STATS": True,
        "EXPAND_VOLUME": facts.implement("expand_volume"),
        "SINGLE_NODE_MULTI_WRITER": facts.tell_writers_apart,
        "VOLUME_MOUNT_GROUP": all(backend.description.mount_group for backend in facts.backends),
        "GET_VOLUME_HEALTH": facts.alpha and facts.implement("volume_health"),
        "GET_STORAGE_HEALTH": facts.alpha and facts.implement("storage_health"),
    }


def _chosen(candidates: dict[str, bool]) -> frozenset[str]:
    return frozenset(name for name, holds in candidates.items() if holds)


def _common_reach(backends: tuple[Declaring, ...]) -> Reach:
    by_reach = {backend.description.reach: backend.name for backend in backends}
    if len(by_reach) > 1:
        raise ConfigError(
            f"backends: {by_reach[Reach.NODE_LOCAL]!r} is node-local and {by_reach[Reach.NETWORK]!r} is a network "
            f"backend; one driver serves one kind, so configure them as two drivers with two names"
        )
    return next(iter(by_reach))
