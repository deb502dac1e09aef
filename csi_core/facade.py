"""A configured backend as the core sees it: typed methods over pluggy hooks.

Each backend has a plugin manager of its own, which holds one plugin and any number of wrappers, so a hook is always
answered by exactly one implementation. A call costs what pluggy costs (2-3 us): callers are looked up once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, cast

import pluggy

from csi_core.contract import HOOKS, check_backend, check_wrapper
from csi_core.declarations import check_declarations
from csi_core.errors import PluginError, Unavailable, Unsupported
from csi_core.health import Finding, HealthProblem
from csi_core.hookspecs import PROJECT, BackendSpec, Host
from csi_core.model import (
    AttachRequest,
    BlockMap,
    Capacity,
    CapacityQuery,
    Description,
    GroupSnapshot,
    GroupSnapshotSpec,
    Outcome,
    Page,
    PublishRequest,
    SizeRange,
    Snapshot,
    SnapshotSpec,
    Source,
    Volume,
    VolumeSpec,
)
from csi_core.parameters import Parameters

__all__ = ["Backend"]

_LIFE_CYCLE = frozenset({"describe", "start", "stop"})


class Backend:
    """One backend under its configured name. Make it with :meth:`load`, then :meth:`start` it.

    Until it is started every hook raises :class:`~csi_core.errors.Unavailable`; one that the plugin does not implement
    raises :class:`~csi_core.errors.Unsupported`. The methods after ``stop`` are the hooks of
    :class:`~csi_core.hookspecs.BackendSpec`, documented there.
    """

    def __init__(self, name: str, hooks: frozenset[str], manager: pluggy.PluginManager) -> None:
        self.name = name
        self.hooks = hooks
        self._manager = manager
        self._description: Description | None = None
        self._call = cast(BackendSpec, _NotStarted(name))

    @classmethod
    def load(cls, name: str, plugin: object, wrappers: Sequence[object] = ()) -> Backend:
        """Take a plugin on, without calling it.

        Args:
            name: the configured name, which begins the ids of its volumes.
            plugin: an object whose methods are marked with ``@hookimpl``.
            wrappers: objects whose methods are marked with ``@hookimpl(wrapper=True)``; the first is the outermost.

        Raises:
            PluginError: the plugin or a wrapper breaks the contract; the message names the hook and the fix.
        """
        hooks = check_backend(name, plugin)
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(BackendSpec)
        try:
            manager.register(plugin, name)
            # pluggy calls the wrapper registered last first.
            for wrapper in reversed(wrappers):
                check_wrapper(name, wrapper)
                manager.register(wrapper)
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginError(f"backend {name!r}: {error}") from error
        return cls(name, hooks, manager)

    @property
    def description(self) -> Description:
        """What the backend declares.

        Raises:
            Unavailable: it has not been started yet.
        """
        if self._description is None:
            raise _not_started(self.name)
        return self._description

    def start(self, host: Host) -> Description:
        """Start the backend and learn what it declares. May be called again after Unavailable.

        Raises:
            PluginError: it declares what it does not implement.
            CsiCoreError: whatever its ``start`` raises.
        """
        self._manager.hook.start(host=host)
        self._description = check_declarations(self.name, self.hooks, self._manager.hook.describe())
        self._call = cast(BackendSpec, _Started(self.name, self.hooks, self._manager.hook))
        return self._description

    def stop(self) -> None:
        """Close the storage. From now on hooks raise Unavailable."""
        self._call = cast(BackendSpec, _NotStarted(self.name))
        self._manager.hook.stop()

    def create_volume(self, spec: VolumeSpec) -> Outcome[Volume]:
        """Create a volume, or answer the one of this name."""
        return self._call.create_volume(spec=spec)

    def delete_volume(self, handle: str, secrets: Parameters) -> None:
        """Delete a volume."""
        self._call.delete_volume(handle=handle, secrets=secrets)

    def get_volume(self, handle: str) -> Volume | None:
        """The volume, or None."""
        return self._call.get_volume(handle=handle)

    def find_volume(self, name: str) -> Volume | None:
        """The volume created under ``name``, or None."""
        return self._call.find_volume(name=name)

    def list_volumes(self, cursor: str, limit: int) -> Page[Volume]:
        """One page of volumes."""
        return self._call.list_volumes(cursor=cursor, limit=limit)

    def get_capacity(self, query: CapacityQuery) -> Capacity:
        """Room for new volumes, in bytes."""
        return self._call.get_capacity(query=query)

    def expand_volume(self, handle: str, size: SizeRange) -> int:
        """Grow a volume; answer its size in bytes."""
        return self._call.expand_volume(handle=handle, size=size)

    def modify_volume(self, handle: str, mutable: Parameters, recorded_mutable: dict[str, str]) -> None:
        """Put mutable parameters in force."""
        self._call.modify_volume(handle=handle, mutable=mutable, recorded_mutable=recorded_mutable)

    def publish_volume(self, request: PublishRequest) -> dict[str, str]:
        """Let a node reach a volume; answer the publish context."""
        return self._call.publish_volume(request=request)

    def unpublish_volume(self, handle: str, node_id: str, secrets: Parameters) -> None:
        """Take a node's access away; "" means every node's."""
        self._call.unpublish_volume(handle=handle, node_id=node_id, secrets=secrets)

    def create_snapshot(self, spec: SnapshotSpec) -> Outcome[Snapshot]:
        """Take a snapshot, or answer the one of this name."""
        return self._call.create_snapshot(spec=spec)

    def delete_snapshot(self, handle: str, secrets: Parameters) -> None:
        """Delete a snapshot."""
        self._call.delete_snapshot(handle=handle, secrets=secrets)

    def get_snapshot(self, handle: str) -> Snapshot | None:
        """The snapshot, or None."""
        return self._call.get_snapshot(handle=handle)

    def list_snapshots(self, cursor: str, limit: int, volume_handle: str) -> Page[Snapshot]:
        """One page of snapshots, of one volume or ("") of all."""
        return self._call.list_snapshots(cursor=cursor, limit=limit, volume_handle=volume_handle)

    def create_group_snapshot(self, spec: GroupSnapshotSpec) -> Outcome[GroupSnapshot]:
        """Take snapshots of several volumes at one point in time."""
        return self._call.create_group_snapshot(spec=spec)

    def delete_group_snapshot(self, handle: str, secrets: Parameters) -> None:
        """Delete a group and its snapshots."""
        self._call.delete_group_snapshot(handle=handle, secrets=secrets)

    def get_group_snapshot(self, handle: str) -> GroupSnapshot | None:
        """The group, or None."""
        return self._call.get_group_snapshot(handle=handle)

    def allocated_blocks(self, snapshot_handle: str, start_offset_bytes: int) -> BlockMap:
        """The ranges of a snapshot that hold data."""
        return self._call.allocated_blocks(snapshot_handle=snapshot_handle, start_offset_bytes=start_offset_bytes)

    def changed_blocks(self, base_handle: str, target_handle: str, start_offset_bytes: int) -> BlockMap:
        """The ranges that differ between two snapshots."""
        return self._call.changed_blocks(
            base_handle=base_handle, target_handle=target_handle, start_offset_bytes=start_offset_bytes
        )

    def attach_volume(self, request: AttachRequest) -> Source:
        """Make a volume usable on this node; answer its source."""
        return self._call.attach_volume(request=request)

    def detach_volume(self, handle: str) -> None:
        """Undo ``attach_volume``."""
        self._call.detach_volume(handle=handle)

    def find_source(self, handle: str) -> Source | None:
        """The source of an attached volume, or None."""
        return self._call.find_source(handle=handle)

    def mark_formatted(self, handle: str, fs_type: str) -> None:
        """Record, once, that a filesystem was made."""
        self._call.mark_formatted(handle=handle, fs_type=fs_type)

    def volume_health(self, handle: str) -> tuple[HealthProblem, ...]:
        """What is wrong with a volume."""
        return self._call.volume_health(handle=handle)

    def storage_health(self) -> tuple[HealthProblem, ...]:
        """What is wrong with the storage."""
        return self._call.storage_health()

    def diagnose(self) -> Iterator[Finding]:
        """Where records and storage differ."""
        return self._call.diagnose()

    def repair(self, finding: Finding) -> bool:
        """Repair one finding; answer whether it was done."""
        return self._call.repair(finding=finding)


class _Started:
    """Every hook as an attribute: pluggy's caller, or a refusal where the plugin has none."""

    def __init__(self, name: str, hooks: frozenset[str], relay: Any) -> None:
        for hook in HOOKS.keys() - _LIFE_CYCLE:
            setattr(self, hook, getattr(relay, hook) if hook in hooks else _Refusal(name, hook))


class _Refusal:
    def __init__(self, name: str, hook: str) -> None:
        self._name = name
        self._hook = hook

    def __call__(self, **_: object) -> NoReturn:
        raise Unsupported(f"backend {self._name!r} cannot do this: it does not implement {self._hook}")


class _NotStarted:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, hook: str) -> NoReturn:
        raise _not_started(self._name)


def _not_started(name: str) -> Unavailable:
    return Unavailable(f"backend {name!r} is not ready yet; repeat the call later")
