"""Groups of snapshots of one moment. A group is its members: each bears its key, its name and how many there are.

All members are made in the state "creating" while every writer stands still, and marked ready afterwards. A group is
there when all of its members are there and ready; a member of any other group is never shown, and where one is being
made or deleted all of them go.
"""

from __future__ import annotations

from collections.abc import Sequence

from backends.lvm import fronts, names, removal, snapshots, tags
from backends.lvm.deviceclass import DeviceClass, group_complete, group_members
from backends.lvm.options import LvmSnapshotParameters
from backends.lvm.records import Record, created_at, parameter_fields
from backends.lvm.report import Report
from csi_core.errors import AlreadyExists, InvalidArgument
from csi_core.faults import fault
from csi_core.model import Created, Existing, GroupSnapshot, GroupSnapshotSpec, Outcome

__all__ = ["create", "delete", "find", "taken"]

_CREATING = {"state": "creating"}


def create(cls: DeviceClass, spec: GroupSnapshotSpec, volume_keys: Sequence[str]) -> Outcome[GroupSnapshot]:
    """Snapshot several volumes at one moment, all or none; or answer the group of this name.

    Raises:
        NotFound: no such volume.
        InvalidArgument: full copies are asked for.
        NoSpace: no room for all of them.
        TimedOut: writers would have been held for too long.
    """
    group_key = names.make_key("g", spec.name)
    if (found := taken(cls, group_key, spec.name)) is not None:
        return Existing(found)
    parameters = spec.parameters
    if not isinstance(parameters, LvmSnapshotParameters):
        parameters = LvmSnapshotParameters()
    if parameters.mode == "copy":
        raise InvalidArgument("parameter 'mode': full copies are not of one moment; leave mode at native for groups")
    volumes = [cls.volume(key) for key in volume_keys]
    members = {names.make_key("s", f"{group_key}/{volume.key}"): volume for volume in volumes}
    fields = {
        "group": group_key,
        "groupname": spec.name,
        "members": str(len(members)),
        **_CREATING,
        **parameter_fields(spec.recorded),
    }
    try:
        with cls.hold("group snapshot", *members, shared=list(volume_keys)):
            fault("lvm.group.before_still")
            with fronts.still(cls, list(volume_keys)):
                for key, volume in members.items():
                    snapshots.take(cls, key, volume, snapshots.snapshot_fields(volume, fields), parameters)
                    fault("lvm.group.after_member")
            fault("lvm.group.before_ready")
            for key in members:
                cls.retag(key, remove=tags.encode(_CREATING))
                fault("lvm.group.after_ready")
    except BaseException:
        for key in members:
            removal.begin(cls, key)
        raise
    report = cls.reports.current()
    return Created(_public(cls, report, group_key))


def taken(cls: DeviceClass, group_key: str, name: str) -> GroupSnapshot | None:
    """The finished group. One of a call that failed half-way is removed."""
    report = cls.reports.current()
    members = group_members(report, group_key)
    if not members:
        return None
    if members[0].fields["groupname"] != name:
        raise AlreadyExists(f"{group_key} was made for {members[0].fields['groupname']!r}; choose another name")
    if group_complete(report, group_key):
        return _public(cls, report, group_key)
    _remove(cls, members)
    return None


def find(cls: DeviceClass, group_key: str) -> GroupSnapshot | None:
    """The finished group ``group_key``, or None."""
    report = cls.reports.current()
    return _public(cls, report, group_key) if group_complete(report, group_key) else None


def delete(cls: DeviceClass, group_key: str) -> None:
    """Delete a group and its snapshots; one that is not there is deleted.

    Raises:
        Busy: a member is being copied or read.
        TimedOut: they are still being wiped; repeat the call.
    """
    _remove(cls, group_members(cls.reports.current(), group_key))


def _remove(cls: DeviceClass, members: Sequence[Record]) -> None:
    # All marked before the first goes: what is left by a process that was killed is removed at the next start.
    with cls.hold("delete group", *(member.key for member in members)):
        for member in members:
            if member.state != "deleting":
                fault("lvm.delete_group.before_mark")
                cls.retag(member.key, add=tags.encode({"state": "deleting"}), remove=tags.encode(_CREATING))
                fault("lvm.delete_group.after_mark")
    for member in members:
        removal.finish(cls, member.key)


def _public(cls: DeviceClass, report: Report, group_key: str) -> GroupSnapshot:
    members = group_members(report, group_key)
    first = members[0]
    return GroupSnapshot(
        handle=names.join(cls.name, group_key),
        name=first.fields["groupname"],
        snapshots=tuple(snapshots.public(cls, member) for member in members),
        created_at=min(created_at(member.fields) for member in members),
        recorded=first.recorded,
    )
