"""Snapshots, groups of them, and their blocks."""

from __future__ import annotations

from dataclasses import replace

import grpc
import pytest
from fake_driver import MIB, NODE, TOPOLOGY_KEY, Client, Full, Small, refuses

from csi_core._proto import csi_pb2 as pb
from csi_core.model import BlockMap, BlockRange


def snapshot(client: Client, name: str, volume_id: str, **more: object) -> pb.Snapshot:
    request = pb.CreateSnapshotRequest(name=name, source_volume_id=volume_id, **more)
    return client.controller.CreateSnapshot(request).snapshot


def listed(client: Client, **asked: object) -> list[str]:
    return [e.snapshot.snapshot_id for e in client.controller.ListSnapshots(pb.ListSnapshotsRequest(**asked)).entries]


def test_a_snapshot_tells_all_there_is(client: Client) -> None:
    volume = client.create(mib=10)
    taken = snapshot(client, "s", volume.volume_id, parameters={"retain": "true", "csi.storage.k8s.io/x": "y"})
    assert taken.snapshot_id == "fake/s-s"
    assert taken.source_volume_id == volume.volume_id
    assert taken.size_bytes == 10 * MIB
    assert taken.ready_to_use
    assert taken.creation_time.ToJsonString() == "2026-01-02T00:00:00Z"
    assert taken.group_snapshot_id == ""
    assert not taken.accessible_topology
    assert client.controller.GetSnapshot(pb.GetSnapshotRequest(snapshot_id=taken.snapshot_id)).snapshot == taken
    assert client.backend.snapshots["s-s"].recorded == {"retain": "true"}


def test_the_same_again_and_something_else(client: Client) -> None:
    one, two = client.create("a"), client.create("bb")
    taken = snapshot(client, "s", one.volume_id)
    assert snapshot(client, "s", one.volume_id) == taken
    with refuses("ALREADY_EXISTS", "of volume"):
        snapshot(client, "s", two.volume_id)
    with refuses("ALREADY_EXISTS", "'retain'"):
        snapshot(client, "s", one.volume_id, parameters={"retain": "true"})


def test_wrong_parameters_and_sources(client: Client) -> None:
    volume_id = client.create().volume_id
    with refuses("INVALID_ARGUMENT", "did you mean 'retain'?"):
        snapshot(client, "s", volume_id, parameters={"retai": "true"})
    for missing in ("fake/none", "malformed"):
        with refuses("NOT_FOUND"):
            snapshot(client, "s", missing)


def test_topology_of_snapshots_is_alpha(serve) -> None:
    client = serve({"driver": {"alphaCapabilities": True}})
    taken = snapshot(client, "s", client.create().volume_id)
    assert [dict(t.segments) for t in taken.accessible_topology] == [{TOPOLOGY_KEY: NODE}]
    far = pb.TopologyRequirement(requisite=[pb.Topology(segments={TOPOLOGY_KEY: "far"})])
    with refuses("RESOURCE_EXHAUSTED"):
        snapshot(client, "t", taken.source_volume_id, accessibility_requirements=far)


def test_delete(client: Client) -> None:
    taken = snapshot(client, "s", client.create().volume_id)
    for snapshot_id in [taken.snapshot_id, taken.snapshot_id, "fake/never", "malformed"]:
        client.controller.DeleteSnapshot(pb.DeleteSnapshotRequest(snapshot_id=snapshot_id))
    assert not client.backend.snapshots
    for snapshot_id in [taken.snapshot_id, "malformed"]:
        with refuses("NOT_FOUND"):
            client.controller.GetSnapshot(pb.GetSnapshotRequest(snapshot_id=snapshot_id))


def test_listing_by_filter(client: Client) -> None:
    one, two = client.create("a").volume_id, client.create("bb").volume_id
    snapshot(client, "s1", one)
    snapshot(client, "s2", two)
    snapshot(client, "s3", one)
    assert listed(client) == ["fake/s-s1", "fake/s-s2", "fake/s-s3"]
    assert listed(client, source_volume_id=one) == ["fake/s-s1", "fake/s-s3"]
    assert listed(client, snapshot_id="fake/s-s2") == ["fake/s-s2"]
    assert listed(client, snapshot_id="fake/s-s2", source_volume_id=two) == ["fake/s-s2"]
    assert listed(client, snapshot_id="fake/s-s2", source_volume_id=one) == []
    for unknown in ("malformed", "fake/none"):
        assert listed(client, snapshot_id=unknown) == []
        assert listed(client, source_volume_id=unknown) == []


@pytest.mark.parametrize("page_size", [1, 2, 3, 0])
def test_listing_in_pages(serve, page_size: int) -> None:
    client = serve(one=Full(), small=Small(), two=Full())
    for backend in ("one", "two"):
        volume = client.create(f"of {backend}", parameters={"backend": backend}).volume_id
        for name in ("a", "b", "c"):
            snapshot(client, name, volume)
    seen, token = [], ""
    while True:
        request = pb.ListSnapshotsRequest(max_entries=page_size, starting_token=token)
        answer = client.controller.ListSnapshots(request)
        seen += [entry.snapshot.snapshot_id for entry in answer.entries]
        token = answer.next_token
        if not token:
            break
    assert seen == [f"{backend}/s-{name}" for backend in ("one", "two") for name in ("a", "b", "c")]


def test_snapshots_where_no_backend_takes_any(serve) -> None:
    client = serve(fake=Small())
    for call, request in [
        (client.controller.CreateSnapshot, pb.CreateSnapshotRequest()),
        (client.controller.ListSnapshots, pb.ListSnapshotsRequest()),
        (client.group.CreateVolumeGroupSnapshot, pb.CreateVolumeGroupSnapshotRequest()),
        (client.controller.ControllerModifyVolume, pb.ControllerModifyVolumeRequest()),
        (client.node.NodeExpandVolume, pb.NodeExpandVolumeRequest()),
    ]:
        with refuses("UNIMPLEMENTED", "no backend here (fake) implements the hook"):
            call(request)
    with refuses("UNIMPLEMENTED", "'allocated_blocks'"):
        list(client.metadata.GetMetadataAllocated(pb.GetMetadataAllocatedRequest()))


# -- groups ---------------------------------------------------------------------------------------


def group(client: Client, name: str, *volume_ids: str, **more: object) -> pb.VolumeGroupSnapshot:
    request = pb.CreateVolumeGroupSnapshotRequest(name=name, source_volume_ids=volume_ids, **more)
    return client.group.CreateVolumeGroupSnapshot(request).group_snapshot


def test_a_group_lives(client: Client) -> None:
    one, two = client.create("a").volume_id, client.create("bb").volume_id
    taken = group(client, "g", one, two)
    assert taken.group_snapshot_id == "fake/g-g"
    assert taken.ready_to_use
    assert {s.source_volume_id for s in taken.snapshots} == {one, two}
    assert {s.group_snapshot_id for s in taken.snapshots} == {taken.group_snapshot_id}
    assert group(client, "g", two, one) == taken
    with refuses("ALREADY_EXISTS", "of the volumes"):
        group(client, "g", one)
    with refuses("ALREADY_EXISTS", "'retain'"):
        group(client, "g", one, two, parameters={"retain": "true"})
    member = taken.snapshots[0].snapshot_id
    with refuses("INVALID_ARGUMENT", "delete the group"):
        client.controller.DeleteSnapshot(pb.DeleteSnapshotRequest(snapshot_id=member))
    members = [s.snapshot_id for s in taken.snapshots]
    for said in ([], members, members[::-1]):
        asked = {"group_snapshot_id": taken.group_snapshot_id, "snapshot_ids": said}
        answer = client.group.GetVolumeGroupSnapshot(pb.GetVolumeGroupSnapshotRequest(**asked))
        assert answer.group_snapshot == taken
    for said in (members[:1], [*members, "fake/other"]):
        asked = {"group_snapshot_id": taken.group_snapshot_id, "snapshot_ids": said}
        with refuses("INVALID_ARGUMENT", "not the members"):
            client.group.GetVolumeGroupSnapshot(pb.GetVolumeGroupSnapshotRequest(**asked))
        with refuses("INVALID_ARGUMENT", "not the members"):
            client.group.DeleteVolumeGroupSnapshot(pb.DeleteVolumeGroupSnapshotRequest(**asked))
    assert client.backend.groups
    for group_id in [taken.group_snapshot_id, taken.group_snapshot_id, "fake/never", "malformed"]:
        client.group.DeleteVolumeGroupSnapshot(pb.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=group_id))
    assert not client.backend.groups
    for group_id in [taken.group_snapshot_id, "malformed"]:
        with refuses("NOT_FOUND"):
            client.group.GetVolumeGroupSnapshot(pb.GetVolumeGroupSnapshotRequest(group_snapshot_id=group_id))


def test_a_group_of_what_is_not_there_or_not_together(serve) -> None:
    client = serve(one=Full(), two=Full())
    here = client.create("a").volume_id
    there = client.create("b", parameters={"backend": "two"}).volume_id
    with refuses("INVALID_ARGUMENT", "several backends (one, two)"):
        group(client, "g", here, there)
    with refuses("NOT_FOUND", "'one/none'"):
        group(client, "g", here, "one/none")
    assert not client.backend.groups


# -- blocks ---------------------------------------------------------------------------------------


def blocks(*ranges: tuple[int, int], block_size: int = 0) -> BlockMap:
    return BlockMap(64, iter([BlockRange(*r) for r in ranges]), block_size)


def allocated(client: Client, **asked: object) -> list[pb.GetMetadataAllocatedResponse]:
    return list(client.metadata.GetMetadataAllocated(pb.GetMetadataAllocatedRequest(snapshot_id="fake/s-s", **asked)))


def ranges(answers: list[pb.GetMetadataAllocatedResponse]) -> list[list[tuple[int, int]]]:
    return [[(b.byte_offset, b.size_bytes) for b in answer.block_metadata] for answer in answers]


@pytest.fixture
def taken(client: Client) -> Client:
    snapshot(client, "s", client.create("a").volume_id)
    return client


@pytest.mark.parametrize(
    ("max_results", "batches"),
    [
        (1, [[(0, 4)], [(8, 4)], [(16, 4)]]),
        (2, [[(0, 4), (8, 4)], [(16, 4)]]),
        (3, [[(0, 4), (8, 4), (16, 4)]]),
        (0, [[(0, 4), (8, 4), (16, 4)]]),
    ],
)
def test_no_message_holds_more_than_was_asked_for(taken: Client, max_results: int, batches: list[object]) -> None:
    taken.backend.block_map = blocks((0, 4), (8, 4), (16, 4))
    answers = allocated(taken, max_results=max_results)
    assert ranges(answers) == batches
    assert {(a.block_metadata_type, a.volume_capacity_bytes) for a in answers} == {(pb.VARIABLE_LENGTH, 64)}


def test_ranges_before_the_offset_are_left_out(taken: Client) -> None:
    taken.backend.block_map = blocks((0, 4), (4, 4), (8, 4), block_size=4)
    (answer,) = allocated(taken, starting_offset=8)
    assert ranges([answer]) == [[(8, 4)]]
    assert answer.block_metadata_type == pb.FIXED_LENGTH


def test_a_range_that_reaches_over_the_offset_stays(taken: Client) -> None:
    taken.backend.block_map = blocks((0, 4), (4, 8))
    assert ranges(allocated(taken, starting_offset=5)) == [[(4, 8)]]


def test_nothing_allocated_still_tells_the_capacity(taken: Client) -> None:
    (answer,) = allocated(taken, starting_offset=10 * MIB)
    assert answer.volume_capacity_bytes == 64
    assert not answer.block_metadata


@pytest.mark.parametrize("offset", [-1, 10 * MIB + 1])
def test_offsets_outside(taken: Client, offset: int) -> None:
    with refuses("OUT_OF_RANGE", "starting_offset"):
        allocated(taken, starting_offset=offset)


def test_a_backend_that_breaks_its_promise_is_found_out(taken: Client) -> None:
    for bad in [((8, 4), (0, 4)), ((0, 8), (4, 8)), ((0, 0),)]:
        taken.backend.block_map = blocks(*bad)
        with refuses("INTERNAL", "overlap or go back"):
            allocated(taken)


def test_a_snapshot_that_is_not_ready(taken: Client) -> None:
    taken.backend.snapshots["s-s"] = replace(taken.backend.snapshots["s-s"], ready=False)
    with refuses("FAILED_PRECONDITION", "not ready"):
        allocated(taken)


def test_delta(taken: Client) -> None:
    def delta(base: str, target: str, **asked: object) -> list[pb.GetMetadataDeltaResponse]:
        request = pb.GetMetadataDeltaRequest(base_snapshot_id=base, target_snapshot_id=target, **asked)
        return list(taken.metadata.GetMetadataDelta(request))

    first = "fake/s-s"
    second = snapshot(taken, "t", taken.controller.ListVolumes(pb.ListVolumesRequest()).entries[0].volume.volume_id)
    other = snapshot(taken, "u", taken.create("bb").volume_id)
    taken.backend.block_map = blocks((0, 4), (8, 4))
    answers = delta(first, second.snapshot_id, max_results=1)
    assert ranges(answers) == [[(0, 4)], [(8, 4)]]
    assert {(a.block_metadata_type, a.volume_capacity_bytes) for a in answers} == {(pb.VARIABLE_LENGTH, 64)}
    with refuses("INVALID_ARGUMENT", "two different volumes"):
        delta(first, other.snapshot_id)
    with refuses("OUT_OF_RANGE"):
        delta(first, second.snapshot_id, starting_offset=-1)
    for missing in ("malformed", "fake/none"):
        with refuses("NOT_FOUND"):
            delta(first, missing)
        with refuses("NOT_FOUND"):
            delta(missing, first)


def test_a_snapshot_that_is_read_cannot_be_deleted_but_others_may_read_it(taken: Client) -> None:
    def without_end():
        yield from (BlockRange(n, 1) for n in range(0, 10 * MIB, 2))

    taken.backend.block_map = BlockMap(10 * MIB, without_end())
    reading = taken.metadata.GetMetadataAllocated(pb.GetMetadataAllocatedRequest(snapshot_id="fake/s-s"))
    next(reading)
    with refuses("ABORTED", "GetMetadataAllocated has held it"):
        taken.controller.DeleteSnapshot(pb.DeleteSnapshotRequest(snapshot_id="fake/s-s"))
    taken.backend.block_map = blocks((0, 4))
    assert ranges(allocated(taken)) == [[(0, 4)]]
    reading.cancel()
    for _ in range(100):
        try:
            taken.controller.DeleteSnapshot(pb.DeleteSnapshotRequest(snapshot_id="fake/s-s"))
            break
        except grpc.RpcError:
            continue
    assert not taken.backend.snapshots
