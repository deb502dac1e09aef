"""Requests that are wrong in themselves, ids that lead nowhere, and ids of backends that are not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from csi_core._proto import csi_pb2 as pb
from csi_core.testing.contract.selection import Selection, needs
from csi_core.testing.driver.case import Code, DriverCase, refused
from csi_core.testing.harness import AccessMode, mounted, raw_block

__all__ = ["RequestTests"]

Call = tuple[str, str, Any]
"""Service, method and request."""

_ID = "{backend}/no-such-handle"
_NAME = "name"
_GIB = 1 << 30
_UNKNOWN_MODE = 99


def _create(**fields: Any) -> Call:
    message = pb.CreateVolumeRequest(**{"name": _NAME, "volume_capabilities": [mounted()], **fields})
    return "controller", "CreateVolume", message


def _source(**fields: Any) -> pb.VolumeContentSource:
    return pb.VolumeContentSource(**fields)


def _stage(**fields: Any) -> Call:
    given = {"volume_id": _ID, "staging_target_path": "/tmp/stage", "volume_capability": mounted()}  # noqa: S108
    return "node", "NodeStageVolume", pb.NodeStageVolumeRequest(**{**given, **fields})


def _publish(**fields: Any) -> Call:
    given = {
        "volume_id": _ID,
        "staging_target_path": "/tmp/stage",  # noqa: S108
        "target_path": "/tmp/target",  # noqa: S108
        "volume_capability": mounted(),
    }
    return "node", "NodePublishVolume", pb.NodePublishVolumeRequest(**{**given, **fields})


def _attach(**fields: Any) -> Call:
    given = {"volume_id": _ID, "node_id": "node", "volume_capability": mounted()}
    return "controller", "ControllerPublishVolume", pb.ControllerPublishVolumeRequest(**{**given, **fields})


def _validate(**fields: Any) -> Call:
    given = {"volume_id": _ID, "volume_capabilities": [mounted()]}
    return "controller", "ValidateVolumeCapabilities", pb.ValidateVolumeCapabilitiesRequest(**{**given, **fields})


MALFORMED: dict[str, Call] = {
    "create without a name": _create(name=""),
    "create with a control character": _create(name="a\nb"),
    "create with a name of 129 bytes": _create(name="x" * 129),
    "create with a name of 65 two-byte letters": _create(name="ä" * 65),
    "create without capabilities": _create(volume_capabilities=[]),
    "create without an access type": _create(
        volume_capabilities=[pb.VolumeCapability(access_mode=AccessMode(mode=AccessMode.SINGLE_NODE_WRITER))]
    ),
    "create without an access mode": _create(
        volume_capabilities=[pb.VolumeCapability(mount=pb.VolumeCapability.MountVolume())]
    ),
    "create with an unknown access mode": _create(volume_capabilities=[mounted("", _UNKNOWN_MODE)]),  # type: ignore[arg-type]
    "create with mount and block": _create(volume_capabilities=[mounted(), raw_block()]),
    "create with an unknown filesystem": _create(volume_capabilities=[mounted("fat12")]),
    "create with a negative size": _create(capacity_range=pb.CapacityRange(required_bytes=-1)),
    "create with a negative limit": _create(capacity_range=pb.CapacityRange(limit_bytes=-1)),
    "create with a limit below the size": _create(
        capacity_range=pb.CapacityRange(required_bytes=2 * _GIB, limit_bytes=_GIB)
    ),
    "create with an unknown parameter": _create(parameters={"noSuchKey": "1"}),
    "create with an unknown backend": _create(parameters={"backend": "no-such-backend"}),
    "create with 5 KiB of parameters": _create(parameters={"key": "x" * 5000}),
    "create with an unknown secret": _create(secrets={"noSuchKey": "1"}),
    "create with an unknown mutable parameter": _create(mutable_parameters={"noSuchKey": "1"}),
    "create from an empty source": _create(volume_content_source=_source()),
    "create from a snapshot without id": _create(
        volume_content_source=_source(snapshot=pb.VolumeContentSource.SnapshotSource())
    ),
    "create from a volume without id": _create(
        volume_content_source=_source(volume=pb.VolumeContentSource.VolumeSource())
    ),
    "delete without id": ("controller", "DeleteVolume", pb.DeleteVolumeRequest()),
    "get without id": ("controller", "ControllerGetVolume", pb.ControllerGetVolumeRequest()),
    "list less than nothing": ("controller", "ListVolumes", pb.ListVolumesRequest(max_entries=-1)),
    "validate without id": _validate(volume_id=""),
    "validate without capabilities": _validate(volume_capabilities=[]),
    "stage without id": _stage(volume_id=""),
    "stage without path": _stage(staging_target_path=""),
    "stage at a relative path": _stage(staging_target_path="stage"),
    "stage at a path that climbs": _stage(staging_target_path="/tmp/../etc"),  # noqa: S108
    "stage without capability": _stage(volume_capability=None),
    "unstage without id": (
        "node",
        "NodeUnstageVolume",
        pb.NodeUnstageVolumeRequest(staging_target_path="/tmp/stage"),  # noqa: S108
    ),
    "unstage without path": ("node", "NodeUnstageVolume", pb.NodeUnstageVolumeRequest(volume_id=_ID)),
    "publish without id": _publish(volume_id=""),
    "publish without target": _publish(target_path=""),
    "publish at a relative path": _publish(target_path="target"),
    "publish at a path that climbs": _publish(target_path="/tmp/../etc/passwd"),  # noqa: S108
    "publish without capability": _publish(volume_capability=None),
    "unpublish without id": ("node", "NodeUnpublishVolume", pb.NodeUnpublishVolumeRequest(target_path="/tmp/target")),  # noqa: S108
    "unpublish without path": ("node", "NodeUnpublishVolume", pb.NodeUnpublishVolumeRequest(volume_id=_ID)),
    "stats without id": ("node", "NodeGetVolumeStats", pb.NodeGetVolumeStatsRequest(volume_path="/tmp")),  # noqa: S108
    "stats without path": ("node", "NodeGetVolumeStats", pb.NodeGetVolumeStatsRequest(volume_id=_ID)),
}
"""INVALID_ARGUMENT, although no volume of that id exists: fields are judged before anything is looked up."""

UNKNOWN: dict[str, Call] = {
    "get": ("controller", "ControllerGetVolume", pb.ControllerGetVolumeRequest(volume_id=_ID)),
    "validate": _validate(),
    "stage": _stage(),
    "publish": _publish(),
    "stats": (
        "node",
        "NodeGetVolumeStats",
        pb.NodeGetVolumeStatsRequest(volume_id=_ID, volume_path="/tmp"),  # noqa: S108
    ),
}
"""NOT_FOUND for a volume that is not there."""

NEEDING: dict[str, dict[str, tuple[Code, Call]]] = {
    "create_snapshot": {
        "snapshot without a name": (
            Code.INVALID_ARGUMENT,
            ("controller", "CreateSnapshot", pb.CreateSnapshotRequest(source_volume_id=_ID)),
        ),
        "snapshot without a volume": (
            Code.INVALID_ARGUMENT,
            ("controller", "CreateSnapshot", pb.CreateSnapshotRequest(name=_NAME)),
        ),
        "snapshot with a control character": (
            Code.INVALID_ARGUMENT,
            ("controller", "CreateSnapshot", pb.CreateSnapshotRequest(name="a\tb", source_volume_id=_ID)),
        ),
        "snapshot of nothing": (
            Code.NOT_FOUND,
            ("controller", "CreateSnapshot", pb.CreateSnapshotRequest(name=_NAME, source_volume_id=_ID)),
        ),
        "delete snapshot without id": (
            Code.INVALID_ARGUMENT,
            ("controller", "DeleteSnapshot", pb.DeleteSnapshotRequest()),
        ),
        "get snapshot without id": (Code.INVALID_ARGUMENT, ("controller", "GetSnapshot", pb.GetSnapshotRequest())),
        "get no snapshot": (Code.NOT_FOUND, ("controller", "GetSnapshot", pb.GetSnapshotRequest(snapshot_id=_ID))),
    },
    "expand_volume": {
        "node expand without id": (
            Code.INVALID_ARGUMENT,
            ("node", "NodeExpandVolume", pb.NodeExpandVolumeRequest(volume_path="/tmp")),  # noqa: S108
        ),
        "node expand without path": (
            Code.INVALID_ARGUMENT,
            ("node", "NodeExpandVolume", pb.NodeExpandVolumeRequest(volume_id=_ID)),
        ),
        "node expand of nothing": (
            Code.NOT_FOUND,
            ("node", "NodeExpandVolume", pb.NodeExpandVolumeRequest(volume_id=_ID, volume_path="/tmp")),  # noqa: S108
        ),
    },
    "publish_volume": {
        "controller publish without id": (Code.INVALID_ARGUMENT, _attach(volume_id="")),
        "controller publish without node": (Code.INVALID_ARGUMENT, _attach(node_id="")),
        "controller publish without capability": (Code.INVALID_ARGUMENT, _attach(volume_capability=None)),
        "controller publish of nothing": (Code.NOT_FOUND, _attach()),
        "controller unpublish without id": (
            Code.INVALID_ARGUMENT,
            ("controller", "ControllerUnpublishVolume", pb.ControllerUnpublishVolumeRequest()),
        ),
    },
    "modify_volume": {
        "modify without id": (
            Code.INVALID_ARGUMENT,
            ("controller", "ControllerModifyVolume", pb.ControllerModifyVolumeRequest(mutable_parameters={"a": "b"})),
        ),
    },
    "create_group_snapshot": {
        "group without a name": (
            Code.INVALID_ARGUMENT,
            ("group", "CreateVolumeGroupSnapshot", pb.CreateVolumeGroupSnapshotRequest(source_volume_ids=[_ID])),
        ),
        "group without volumes": (
            Code.INVALID_ARGUMENT,
            ("group", "CreateVolumeGroupSnapshot", pb.CreateVolumeGroupSnapshotRequest(name=_NAME)),
        ),
        "group of nothing": (
            Code.NOT_FOUND,
            (
                "group",
                "CreateVolumeGroupSnapshot",
                pb.CreateVolumeGroupSnapshotRequest(name=_NAME, source_volume_ids=[_ID]),
            ),
        ),
        "delete group without id": (
            Code.INVALID_ARGUMENT,
            ("group", "DeleteVolumeGroupSnapshot", pb.DeleteVolumeGroupSnapshotRequest()),
        ),
        "get no group": (
            Code.NOT_FOUND,
            ("group", "GetVolumeGroupSnapshot", pb.GetVolumeGroupSnapshotRequest(group_snapshot_id=_ID)),
        ),
    },
    "allocated_blocks": {
        "allocated without id": (
            Code.INVALID_ARGUMENT,
            ("metadata", "GetMetadataAllocated", pb.GetMetadataAllocatedRequest()),
        ),
        "allocated of nothing": (
            Code.NOT_FOUND,
            ("metadata", "GetMetadataAllocated", pb.GetMetadataAllocatedRequest(snapshot_id=_ID)),
        ),
        "delta without base": (
            Code.INVALID_ARGUMENT,
            ("metadata", "GetMetadataDelta", pb.GetMetadataDeltaRequest(target_snapshot_id=_ID)),
        ),
        "delta of nothing": (
            Code.NOT_FOUND,
            ("metadata", "GetMetadataDelta", pb.GetMetadataDeltaRequest(base_snapshot_id=_ID, target_snapshot_id=_ID)),
        ),
    },
}
"""What calls that are served only with a certain hook refuse, and how."""


def _table(hook: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    rows = NEEDING[hook]
    return pytest.mark.parametrize(("code", "call"), rows.values(), ids=rows.keys())


def _placed(message: Any, identifier: str) -> Any:
    """A copy of a request with another id in the place of the one of the tables."""
    copy = type(message)()
    copy.CopyFrom(message)
    for field, value in copy.ListFields():
        if value == _ID:
            setattr(copy, field.name, identifier)
        elif not isinstance(value, str) and field.type == field.TYPE_STRING and _ID in value:
            del getattr(copy, field.name)[:]
            getattr(copy, field.name).append(identifier)
    return copy


class RequestTests(Selection):
    """Every bad request, with its code."""

    def send(self, driver: DriverCase, call: Call, identifier: str = "") -> None:
        """Make a call of the tables, on an id of this backend unless another is given."""
        service, method, message = call
        placed = _placed(message, identifier or _ID.format(backend=driver.backend))
        answer = driver.call(getattr(getattr(driver.server, service), method), placed)
        if service == "metadata":
            list(answer)

    @pytest.mark.parametrize("call", MALFORMED.values(), ids=MALFORMED.keys())
    def test_malformed(self, driver: DriverCase, call: Call) -> None:
        """INVALID_ARGUMENT, before anything is looked up; nothing is made."""
        with refused(Code.INVALID_ARGUMENT):
            self.send(driver, call)
        assert driver.volume_ids() == []

    @pytest.mark.parametrize("call", UNKNOWN.values(), ids=UNKNOWN.keys())
    @pytest.mark.parametrize("identifier", ["", "no-such-volume", "{backend}/../../etc/passwd", "/", "ä/ö"])
    def test_unknown(self, driver: DriverCase, call: Call, identifier: str) -> None:
        """NOT_FOUND, for ids of the right form and for others."""
        with refused(Code.NOT_FOUND):
            self.send(driver, call, identifier.format(backend=driver.backend))

    @pytest.mark.parametrize("call", UNKNOWN.values(), ids=UNKNOWN.keys())
    def test_backend_not_loaded(self, driver: DriverCase, call: Call) -> None:
        """FAILED_PRECONDITION, and never OK, for an id of a backend that is not configured."""
        with refused(Code.FAILED_PRECONDITION):
            self.send(driver, call, "elsewhere/no-such-handle")
        with refused(Code.FAILED_PRECONDITION):
            driver.delete("elsewhere/no-such-handle")

    @pytest.mark.parametrize("identifier", ["{backend}/no-such-handle", "no-such-volume", "{backend}/..", "///", "ä"])
    def test_delete_of_nothing(self, driver: DriverCase, identifier: str) -> None:
        """OK: it is not there."""
        driver.delete(identifier.format(backend=driver.backend))

    def test_validate_says_why_not(self, driver: DriverCase) -> None:
        """What is served is confirmed; what is not is explained, without an error."""
        mode = self.volume_modes[0]
        volume = driver.create("data", mode)
        request = pb.ValidateVolumeCapabilitiesRequest(
            volume_id=volume.volume_id, volume_capabilities=[driver.capability(mode)], secrets=driver.secrets
        )
        answer = driver.call(driver.server.controller.ValidateVolumeCapabilities, request)
        assert list(answer.confirmed.volume_capabilities) == [driver.capability(mode)]
        request.volume_capabilities.append(mounted("fat12"))
        answer = driver.call(driver.server.controller.ValidateVolumeCapabilities, request)
        assert not answer.HasField("confirmed")
        assert "fat12" in answer.message

    @needs("create_snapshot")
    @_table("create_snapshot")
    def test_bad_snapshot_call(self, driver: DriverCase, code: Code, call: Call) -> None:
        """Snapshots."""
        with refused(code):
            self.send(driver, call)

    @needs("create_snapshot")
    @pytest.mark.parametrize("identifier", ["{backend}/no-such-handle", "no-such-snapshot", "/"])
    def test_delete_of_no_snapshot(self, driver: DriverCase, identifier: str) -> None:
        """OK: it is not there; but one of a backend that is not configured is not known to be gone."""
        driver.delete_snapshot(identifier.format(backend=driver.backend))
        with refused(Code.FAILED_PRECONDITION):
            driver.delete_snapshot("elsewhere/no-such-handle")

    @needs("expand_volume")
    @_table("expand_volume")
    def test_bad_expand_call(self, driver: DriverCase, code: Code, call: Call) -> None:
        """Expansion."""
        with refused(code):
            self.send(driver, call)

    @needs("publish_volume")
    @_table("publish_volume")
    def test_bad_controller_publish_call(self, driver: DriverCase, code: Code, call: Call) -> None:
        """Access for nodes; a driver that does not advertise it serves no such call."""
        advertised = "PUBLISH_UNPUBLISH_VOLUME" in driver.capabilities
        with refused(code if advertised else Code.UNIMPLEMENTED):
            self.send(driver, call)

    @needs("modify_volume")
    @_table("modify_volume")
    def test_bad_modify_call(self, driver: DriverCase, code: Code, call: Call) -> None:
        """Mutable parameters."""
        with refused(code):
            self.send(driver, call)

    @needs("create_group_snapshot")
    @_table("create_group_snapshot")
    def test_bad_group_call(self, driver: DriverCase, code: Code, call: Call) -> None:
        """Group snapshots."""
        with refused(code):
            self.send(driver, call)

    @needs("allocated_blocks")
    @_table("allocated_blocks")
    def test_bad_metadata_call(self, driver: DriverCase, code: Code, call: Call) -> None:
        """Snapshot metadata."""
        with refused(code):
            self.send(driver, call)
