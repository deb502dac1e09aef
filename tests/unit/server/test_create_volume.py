"""CreateVolume: what the backend is given, idempotency, sources, topology."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_driver import (
    DESCRIPTION,
    MIB,
    NODE,
    TOPOLOGY_KEY,
    Client,
    Full,
    refuses,
    size,
)

from csi_core._proto import csi_pb2 as pb
from csi_core.model import SourceKind

EXTRAS = {"csi.storage.k8s.io/pvc/name": "data", "csi.storage.k8s.io/pvc/namespace": "shop"}


def volume_source(volume_id: str) -> pb.VolumeContentSource:
    return pb.VolumeContentSource(volume=pb.VolumeContentSource.VolumeSource(volume_id=volume_id))


def snapshot_source(snapshot_id: str) -> pb.VolumeContentSource:
    return pb.VolumeContentSource(snapshot=pb.VolumeContentSource.SnapshotSource(snapshot_id=snapshot_id))


def topology(*nodes: str, key: str = TOPOLOGY_KEY) -> pb.TopologyRequirement:
    return pb.TopologyRequirement(requisite=[pb.Topology(segments={key: node}) for node in nodes])


def test_create_tells_all_there_is(client: Client) -> None:
    volume = client.create(mib=10)
    assert volume.volume_id.startswith("fake/")
    assert volume.capacity_bytes == 10 * MIB
    assert dict(volume.volume_context) == {"made": "here"}
    assert [dict(t.segments) for t in volume.accessible_topology] == [{TOPOLOGY_KEY: NODE}]
    assert not volume.HasField("content_source")


def test_what_the_backend_is_given(client: Client) -> None:
    parameters = {"pool": "fast", "iops": "200", "burst": "3", "backend": "fake"} | EXTRAS
    client.create(parameters=parameters, mutable_parameters={"iops": "900"}, secrets={"password": "x"})
    (spec,) = client.backend.specs
    assert (spec.parameters.pool, spec.parameters.iops) == ("fast", 900)
    assert (spec.mutable.iops, spec.mutable.burst) == (900, 3)
    assert spec.recorded == {"pool": "fast", "iops": "900"}
    assert spec.recorded_mutable == {"iops": "900", "burst": "3"}
    assert spec.secrets.password == "x"
    assert spec.claim == "shop/data"
    assert spec.capabilities[0].fs_type == "ext4"


@pytest.mark.parametrize("extras", [{}, {"csi.storage.k8s.io/pvc/name": "data"}])
def test_no_claim_is_made_up(client: Client, extras: dict[str, str]) -> None:
    client.create(parameters=extras)
    assert client.backend.specs[0].claim == ""


def test_the_same_again_is_the_same_volume(client: Client) -> None:
    first = client.create(parameters={"pool": "a"}, mutable_parameters={"iops": "5"})
    assert client.create(parameters={"pool": "a"}, mutable_parameters={"iops": "5"}) == first
    assert client.create(mib=5, parameters={"pool": "a"}, mutable_parameters={"iops": "5"}) == first


@pytest.mark.parametrize(
    ("other", "text"),
    [
        ({"mib": 20}, "it has 10485760 bytes"),
        ({"capacity_range": size(1, 9)}, "it has 10485760 bytes"),
        ({"parameters": {"pool": "b"}}, "parameter 'pool' is 'a' there"),
        ({"parameters": {}}, "parameter 'pool'"),
        ({"mutable_parameters": {"iops": "6"}}, "parameter 'iops'"),
        ({"mutable_parameters": {"burst": "1"}}, "parameter 'burst' is None there"),
    ],
)
def test_the_same_name_for_something_else(client: Client, other: dict[str, object], text: str) -> None:
    client.create(parameters={"pool": "a"})
    with refuses("ALREADY_EXISTS", text):
        client.create(**{"parameters": {"pool": "a"}} | other)


def test_the_same_name_from_another_source(client: Client) -> None:
    source = client.create("source")
    client.create("copy")
    with refuses("ALREADY_EXISTS", "made from nothing"):
        client.create("copy", volume_content_source=volume_source(source.volume_id))


def test_a_clone_echoes_its_source(client: Client) -> None:
    source = client.create("source")
    copy = client.create("copy", volume_content_source=volume_source(source.volume_id))
    assert copy.content_source.volume.volume_id == source.volume_id
    client.controller.CreateSnapshot(pb.CreateSnapshotRequest(name="s", source_volume_id=source.volume_id))
    restored = client.create("restored", volume_content_source=snapshot_source("fake/s-s"))
    assert restored.content_source.snapshot.snapshot_id == "fake/s-s"
    again = client.create("restored", volume_content_source=snapshot_source("fake/s-s"))
    assert again == restored


@pytest.mark.parametrize(
    "source", [volume_source("fake/none"), snapshot_source("fake/none"), volume_source("malformed")]
)
def test_an_unknown_source(client: Client, source: pb.VolumeContentSource) -> None:
    with refuses("NOT_FOUND"):
        client.create(volume_content_source=source)
    assert not client.backend.volumes


@pytest.mark.parametrize("too_small", [size(5), size(0, 5), size(5, 9)])
def test_a_volume_smaller_than_its_source(client: Client, too_small: pb.CapacityRange) -> None:
    source = volume_source(client.create("source", mib=10).volume_id)
    with refuses("OUT_OF_RANGE", "cannot hold it"):
        client.create("copy", volume_content_source=source, capacity_range=too_small)


def test_no_size_said_is_the_source_s_to_say(client: Client) -> None:
    source = volume_source(client.create("source", mib=10).volume_id)
    assert client.create("copy", volume_content_source=source, capacity_range=size())


def test_a_source_that_is_not_served(serve) -> None:
    client = serve(fake=Full(replace(DESCRIPTION, sources=frozenset({SourceKind.SNAPSHOT}))))
    with refuses("INVALID_ARGUMENT", "cannot make a volume from a volume"):
        client.create(volume_content_source=volume_source("fake/v"))


def test_a_source_of_another_backend(serve) -> None:
    client = serve(one=Full(), two=Full())
    source = client.create("source", parameters={"backend": "two"})
    assert source.volume_id.startswith("two/")
    with refuses("INVALID_ARGUMENT", "belongs to backend 'two'"):
        client.create("copy", volume_content_source=volume_source(source.volume_id))


@pytest.mark.parametrize(
    "required", [topology(NODE), topology("far", NODE), pb.TopologyRequirement(), topology()], ids=str
)
def test_topology_that_is_met(client: Client, required: pb.TopologyRequirement) -> None:
    assert client.create(accessibility_requirements=required)


@pytest.mark.parametrize("required", [topology("far"), topology(NODE, key="other/key")], ids=["node", "key"])
def test_topology_that_is_not_met_sends_the_scheduler_on(client: Client, required: pb.TopologyRequirement) -> None:
    with refuses("RESOURCE_EXHAUSTED", "not for"):
        client.create(accessibility_requirements=required)
    assert not client.backend.specs


def test_network_volumes_have_no_topology(network: Client) -> None:
    assert not network.create(accessibility_requirements=topology("far")).accessible_topology
