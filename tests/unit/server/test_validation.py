"""Every wrong request is refused for what is wrong with it, before anything is looked up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_driver import (
    DESCRIPTION,
    MIB,
    MODES,
    Client,
    Full,
    capability,
    create_request,
    raw_block,
    refuses,
    size,
)

from csi_core._proto import csi_pb2 as pb
from csi_core.model import AccessMode, VolumeMode

LONG = "x" * 129
BIG_MAP = {"k" * 2048: "v" * 2049}
NOBODY = "fake/nobody"
BAD_NAMES = ["", LONG, "ä" * 65, "tab\there", "nul\0", "\x7f", "\x85"]
BAD_PATHS = ["", "relative", "/a/../b", "/nul\0", "/" + "x" * 4096]


def refused(
    client: Client, stub: str, method: str, request: object, code: str = "INVALID_ARGUMENT", text: str = ""
) -> None:
    with refuses(code, text):
        getattr(getattr(client, stub), method)(request)
    assert not client.backend.specs


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names(client: Client, name: str) -> None:
    refused(client, "controller", "CreateVolume", create_request(name), text="name")
    snapshot = pb.CreateSnapshotRequest(name=name, source_volume_id=NOBODY)
    refused(client, "controller", "CreateSnapshot", snapshot, text="name")
    group = pb.CreateVolumeGroupSnapshotRequest(name=name, source_volume_ids=[NOBODY])
    refused(client, "group", "CreateVolumeGroupSnapshot", group, text="name")


@pytest.mark.parametrize("name", ["x" * 128, "ä" * 64, "Grüße/../*?", "..", " "])
def test_any_other_name_will_do(client: Client, name: str) -> None:
    assert client.create(name).volume_id
    assert client.backend.specs[-1].name == name


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"volume_capabilities": []}, "volume_capabilities is required"),
        ({"volume_capabilities": [pb.VolumeCapability(access_mode=MODES(mode=1))]}, "access type"),
        ({"volume_capabilities": [pb.VolumeCapability(mount=pb.VolumeCapability.MountVolume())]}, "is required"),
        ({"volume_capabilities": [capability(99)]}, "access mode 99 is unknown"),
        ({"volume_capabilities": [capability(), raw_block()]}, "mixed"),
        ({"volume_capabilities": [capability(MODES.MULTI_NODE_SINGLE_WRITER)]}, "not served"),
        ({"volume_capabilities": [capability(fs_type="ntfs")]}, "served: ext4, xfs"),
        ({"volume_capabilities": [capability(fs_type=LONG)]}, "fs_type is 129 bytes"),
        ({"volume_capabilities": [capability(flags=("x" * 2000, "y" * 2097))]}, "mount_flags hold 4097 bytes"),
        ({"volume_capabilities": [capability(group="1000")]}, "mount group"),
        ({"volume_capabilities": [capability(group=LONG)]}, "volume_mount_group is 129"),
        ({"capacity_range": pb.CapacityRange(required_bytes=-1)}, "required_bytes is -1"),
        ({"capacity_range": pb.CapacityRange(limit_bytes=-1)}, "limit_bytes is -1"),
        ({"capacity_range": pb.CapacityRange(required_bytes=2, limit_bytes=1)}, "below required_bytes 2"),
        ({"parameters": BIG_MAP}, "parameters holds 4097 bytes"),
        ({"secrets": BIG_MAP}, "secrets holds"),
        ({"mutable_parameters": BIG_MAP}, "mutable_parameters holds"),
        ({"parameters": {"pol": "x"}}, "did you mean 'pool'?"),
        ({"parameters": {"iops": "many"}}, "'iops'"),
        ({"parameters": {"backend": "fak"}}, "did you mean 'fake'?"),
        ({"mutable_parameters": {"bursts": "1"}}, "did you mean 'burst'?"),
        ({"secrets": {"passwort": "hidden"}}, "unknown secret"),
        ({"volume_content_source": pb.VolumeContentSource()}, "a snapshot or a volume is required"),
        (
            {"volume_content_source": pb.VolumeContentSource(volume=pb.VolumeContentSource.VolumeSource())},
            "volume_id is required",
        ),
        (
            {"volume_content_source": pb.VolumeContentSource(snapshot=pb.VolumeContentSource.SnapshotSource())},
            "snapshot_id is required",
        ),
    ],
)
def test_create_volume(client: Client, more: dict[str, object], text: str) -> None:
    refused(client, "controller", "CreateVolume", create_request(**more), text=text)


def test_no_value_of_a_secret_is_told(client: Client) -> None:
    with refuses("INVALID_ARGUMENT") as said:
        client.create(secrets={"passwort": "hunter2"})
    assert "hunter2" not in said.details


@pytest.mark.parametrize(
    ("required", "limit"), [(1, MIB - 1), (MIB + 1, 2 * MIB - 1), (0, 5)], ids=["minimum", "granularity", "limit"]
)
def test_a_size_that_cannot_be_made_is_out_of_range(client: Client, required: int, limit: int) -> None:
    request = create_request(capacity_range=pb.CapacityRange(required_bytes=required, limit_bytes=limit))
    refused(client, "controller", "CreateVolume", request, "OUT_OF_RANGE", "multiples of")


def test_limit_that_rounding_meets_exactly(client: Client) -> None:
    assert client.create(capacity_range=pb.CapacityRange(required_bytes=MIB + 1, limit_bytes=2 * MIB))


def test_filesystems_are_refused_where_sources_are_directories(serve) -> None:
    client = serve(fake=Full(replace(DESCRIPTION, filesystems=())))
    with refuses("INVALID_ARGUMENT", "served: none, leave it out"):
        client.create()
    assert client.create(volume_capabilities=[capability(fs_type="")])


def test_a_volume_mode_that_is_left_out_is_refused(serve) -> None:
    access = {VolumeMode.FILESYSTEM: frozenset(AccessMode)}
    client = serve(fake=Full(replace(DESCRIPTION, access=access)))
    with refuses("INVALID_ARGUMENT", "not served for block volumes; served: none"):
        client.create(volume_capabilities=[raw_block()])


ID_REQUESTS = [
    ("controller", "DeleteVolume", pb.DeleteVolumeRequest, "volume_id", {}),
    ("controller", "ControllerGetVolume", pb.ControllerGetVolumeRequest, "volume_id", {}),
    (
        "controller",
        "ValidateVolumeCapabilities",
        pb.ValidateVolumeCapabilitiesRequest,
        "volume_id",
        {"volume_capabilities": [capability()]},
    ),
    (
        "controller",
        "ControllerModifyVolume",
        pb.ControllerModifyVolumeRequest,
        "volume_id",
        {"mutable_parameters": {"iops": "1"}},
    ),
    (
        "controller",
        "CreateSnapshot",
        pb.CreateSnapshotRequest,
        "source_volume_id",
        {"name": "s"},
    ),
    ("controller", "DeleteSnapshot", pb.DeleteSnapshotRequest, "snapshot_id", {}),
    ("controller", "GetSnapshot", pb.GetSnapshotRequest, "snapshot_id", {}),
    ("group", "DeleteVolumeGroupSnapshot", pb.DeleteVolumeGroupSnapshotRequest, "group_snapshot_id", {}),
    ("group", "GetVolumeGroupSnapshot", pb.GetVolumeGroupSnapshotRequest, "group_snapshot_id", {}),
    (
        "node",
        "NodeStageVolume",
        pb.NodeStageVolumeRequest,
        "volume_id",
        {"staging_target_path": "/s", "volume_capability": capability()},
    ),
    ("node", "NodeUnstageVolume", pb.NodeUnstageVolumeRequest, "volume_id", {"staging_target_path": "/s"}),
    (
        "node",
        "NodePublishVolume",
        pb.NodePublishVolumeRequest,
        "volume_id",
        {"staging_target_path": "/s", "target_path": "/t", "volume_capability": capability()},
    ),
    ("node", "NodeUnpublishVolume", pb.NodeUnpublishVolumeRequest, "volume_id", {"target_path": "/t"}),
    ("node", "NodeGetVolumeStats", pb.NodeGetVolumeStatsRequest, "volume_id", {"volume_path": "/t"}),
    ("node", "NodeExpandVolume", pb.NodeExpandVolumeRequest, "volume_id", {"volume_path": "/t"}),
]


@pytest.mark.parametrize(("stub", "method", "message", "field", "more"), ID_REQUESTS, ids=[r[1] for r in ID_REQUESTS])
def test_ids(client: Client, stub: str, method: str, message: type, field: str, more: dict[str, object]) -> None:
    refused(client, stub, method, message(**{field: ""}, **more), text=f"{field} is required")
    refused(client, stub, method, message(**{field: "fake/" + LONG}, **more), text=f"{field} is 134 bytes")
    refused(client, stub, method, message(**{field: "gone/1"}, **more), "FAILED_PRECONDITION", "'gone'")


WITH_SECRETS = [row for row in ID_REQUESTS if "secrets" in row[2].DESCRIPTOR.fields_by_name]


@pytest.mark.parametrize(("stub", "method", "message", "field", "more"), WITH_SECRETS, ids=[r[1] for r in WITH_SECRETS])
def test_secrets_above_the_limit(
    client: Client, stub: str, method: str, message: type, field: str, more: dict[str, object]
) -> None:
    refused(client, stub, method, message(**{field: NOBODY}, **more, secrets=BIG_MAP), text="secrets holds")


@pytest.mark.parametrize("path", BAD_PATHS)
def test_paths(client: Client, path: str) -> None:
    use = {"volume_id": NOBODY, "volume_capability": capability()}
    for method, request in [
        ("NodeStageVolume", pb.NodeStageVolumeRequest(**use, staging_target_path=path)),
        ("NodeUnstageVolume", pb.NodeUnstageVolumeRequest(volume_id=NOBODY, staging_target_path=path)),
        ("NodePublishVolume", pb.NodePublishVolumeRequest(**use, staging_target_path="/s", target_path=path)),
        ("NodeUnpublishVolume", pb.NodeUnpublishVolumeRequest(volume_id=NOBODY, target_path=path)),
    ]:
        refused(client, "node", method, request, text="target_path")


@pytest.mark.parametrize("method", ["NodeStageVolume", "NodePublishVolume"])
@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({}, "volume_capability is required"),
        ({"volume_capability": pb.VolumeCapability()}, "access type"),
        ({"volume_capability": capability(0)}, "is required"),
        ({"volume_capability": capability(fs_type="ntfs")}, "not served"),
        ({"volume_capability": capability(), "publish_context": BIG_MAP}, "publish_context holds"),
        ({"volume_capability": capability(), "volume_context": BIG_MAP}, "volume_context holds"),
        ({"volume_capability": capability(), "secrets": {"user": "me"}}, "unknown secret 'user'"),
    ],
)
def test_use_on_the_node(client: Client, method: str, more: dict[str, object], text: str) -> None:
    message = getattr(pb, f"{method}Request")(volume_id=NOBODY, staging_target_path="/s", **more)
    if method == "NodePublishVolume":
        message.target_path = "/t"
    refused(client, "node", method, message, text=text)


def test_publish_without_a_staging_path(client: Client) -> None:
    request = pb.NodePublishVolumeRequest(volume_id=NOBODY, target_path="/t", volume_capability=capability())
    refused(client, "node", "NodePublishVolume", request, "FAILED_PRECONDITION", "NodeStageVolume first")


def test_stats_look_the_volume_up_before_they_judge_the_path(client: Client) -> None:
    request = pb.NodeGetVolumeStatsRequest(volume_id=NOBODY, volume_path="some/path")
    refused(client, "node", "NodeGetVolumeStats", request, "NOT_FOUND")
    request.volume_path = ""
    refused(client, "node", "NodeGetVolumeStats", request, text="volume_path is required")


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"node_id": ""}, "node_id is required"),
        ({"node_id": "n" * 257}, "node_id is 257"),
        ({"node_id": "n"}, "volume_capability is required"),
        ({"node_id": "n", "volume_capability": capability(0)}, "access mode 0 is required"),
        ({"node_id": "n", "volume_capability": capability(), "volume_context": BIG_MAP}, "volume_context"),
    ],
)
def test_controller_publish(network: Client, more: dict[str, object], text: str) -> None:
    request = pb.ControllerPublishVolumeRequest(volume_id=NOBODY, **more)
    refused(network, "controller", "ControllerPublishVolume", request, text=text)


def test_controller_unpublish(network: Client) -> None:
    refused(network, "controller", "ControllerUnpublishVolume", pb.ControllerUnpublishVolumeRequest(), text="volume_id")
    request = pb.ControllerUnpublishVolumeRequest(volume_id=NOBODY, node_id="n" * 257)
    refused(network, "controller", "ControllerUnpublishVolume", request, text="node_id")


def test_controller_expand(network: Client) -> None:
    def expand(**fields: object) -> pb.ControllerExpandVolumeRequest:
        return pb.ControllerExpandVolumeRequest(**fields)

    method = "ControllerExpandVolume"
    refused(network, "controller", method, expand(volume_id=NOBODY), text="capacity_range is required")
    refused(network, "controller", method, expand(capacity_range=size(1)), text="volume_id is required")
    empty = pb.CapacityRange()
    refused(network, "controller", method, expand(volume_id=NOBODY, capacity_range=empty), text="required_bytes")
    negative = pb.CapacityRange(required_bytes=-5)
    refused(network, "controller", method, expand(volume_id=NOBODY, capacity_range=negative), text="negative")
    wrong = {"volume_id": NOBODY, "capacity_range": size(1)}
    refused(network, "controller", method, expand(**wrong, volume_capability=capability(0)), text="access mode")
    refused(network, "controller", method, expand(**wrong), "NOT_FOUND")


def test_modify_needs_something_to_modify(client: Client) -> None:
    request = pb.ControllerModifyVolumeRequest(volume_id=NOBODY)
    refused(client, "controller", "ControllerModifyVolume", request, text="mutable_parameters is required")


@pytest.mark.parametrize("method", ["ListVolumes", "ListSnapshots"])
def test_listings(client: Client, method: str) -> None:
    message = getattr(pb, f"{method}Request")
    refused(client, "controller", method, message(max_entries=-1), text="max_entries")
    for token in ["what", "other/", "fake", "fake/garbage"]:
        refused(client, "controller", method, message(starting_token=token), "ABORTED", token)


def test_capacity(client: Client) -> None:
    request = pb.GetCapacityRequest(volume_capabilities=[pb.VolumeCapability()])
    refused(client, "controller", "GetCapacity", request, text="access type")
    refused(client, "controller", "GetCapacity", pb.GetCapacityRequest(parameters=BIG_MAP), text="parameters")


@pytest.mark.parametrize(
    ("ids", "text"),
    [([], "source_volume_ids is required"), ([""], "is required"), ([NOBODY, NOBODY], "twice")],
)
def test_group_members(client: Client, ids: list[str], text: str) -> None:
    request = pb.CreateVolumeGroupSnapshotRequest(name="g", source_volume_ids=ids)
    refused(client, "group", "CreateVolumeGroupSnapshot", request, text=text)


def test_metadata(client: Client) -> None:
    def allocated(code: str, text: str = "", **fields: object) -> None:
        with refuses(code, text):
            list(client.metadata.GetMetadataAllocated(pb.GetMetadataAllocatedRequest(**fields)))

    def delta(code: str, text: str = "", **fields: object) -> None:
        with refuses(code, text):
            list(client.metadata.GetMetadataDelta(pb.GetMetadataDeltaRequest(**fields)))

    allocated("INVALID_ARGUMENT", "snapshot_id is required")
    allocated("INVALID_ARGUMENT", "max_results", snapshot_id=NOBODY, max_results=-1)
    allocated("INVALID_ARGUMENT", "secrets", snapshot_id=NOBODY, secrets=BIG_MAP)
    allocated("NOT_FOUND", snapshot_id="malformed")
    allocated("NOT_FOUND", snapshot_id=NOBODY)
    delta("INVALID_ARGUMENT", "base_snapshot_id is required", target_snapshot_id=NOBODY)
    delta("INVALID_ARGUMENT", "target_snapshot_id is required", base_snapshot_id=NOBODY)
    delta("NOT_FOUND", base_snapshot_id=NOBODY, target_snapshot_id=NOBODY)
