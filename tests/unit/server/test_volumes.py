"""What the Controller service does with right requests: idempotency, sources, listings, capacity, growth, access."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_driver import (
    DESCRIPTION,
    MIB,
    MODES,
    NODE,
    TOPOLOGY_KEY,
    Client,
    Full,
    Network,
    Small,
    capability,
    raw_block,
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


def test_delete(client: Client) -> None:
    volume = client.create()
    for volume_id in [volume.volume_id, volume.volume_id, "fake/never", "malformed", "fake/../x", "Fake/x"]:
        client.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume_id))
    assert not client.backend.volumes


def test_delete_of_a_backend_that_is_not_loaded_would_leak(client: Client) -> None:
    with refuses("FAILED_PRECONDITION", "not configured here"):
        client.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id="gone/v1"))


def test_get_volume(network: Client) -> None:
    volume = network.create()
    handle = volume.volume_id.removeprefix("fake/")
    network.backend.volumes[handle] = replace(network.backend.volumes[handle], published_node_ids=("a", "b"))
    answer = network.controller.ControllerGetVolume(pb.ControllerGetVolumeRequest(volume_id=volume.volume_id))
    assert answer.volume == volume
    assert answer.status.published_node_ids == ["a", "b"]
    listed = network.controller.ListVolumes(pb.ListVolumesRequest()).entries[0]
    assert listed.status.published_node_ids == ["a", "b"]
    with refuses("NOT_FOUND"):
        network.controller.ControllerGetVolume(pb.ControllerGetVolumeRequest(volume_id="fake/none"))


@pytest.mark.parametrize("page_size", [1, 2, 3, 4, 5, 7, 100, 0])
def test_a_listing_runs_through_all_backends(serve, page_size: int) -> None:
    client = serve(one=Full(), empty=Full(), two=Small())
    made = [client.create(f"{'v' * n}", parameters={"backend": b}).volume_id for b in ("one", "two") for n in (1, 2, 3)]
    seen, token, pages = [], "", 0
    while True:
        answer = client.controller.ListVolumes(pb.ListVolumesRequest(max_entries=page_size, starting_token=token))
        assert len(answer.entries) <= (page_size or 100)
        seen += [entry.volume.volume_id for entry in answer.entries]
        token, pages = answer.next_token, pages + 1
        if not token:
            break
    assert seen == made
    assert pages <= -(-len(made) // (page_size or 100)) + 1


def test_a_token_without_a_maximum_answers_all_the_rest(client: Client) -> None:
    for n in range(1, 6):
        client.create("v" * n)
    first = client.controller.ListVolumes(pb.ListVolumesRequest(max_entries=2))
    rest = client.controller.ListVolumes(pb.ListVolumesRequest(starting_token=first.next_token))
    assert len(rest.entries) == 3
    assert not rest.next_token


def test_a_listing_is_never_that_of_before(network: Client) -> None:
    """The core keeps the last one, and answers it again as long as each volume is what it was."""
    for name in ("a", "bb"):
        network.create(name)
    volumes = network.backend.volumes
    _, second = sorted(volumes)

    def listed(**asked: int) -> pb.ListVolumesResponse:
        return network.controller.ListVolumes(pb.ListVolumesRequest(**asked))

    before = listed()
    volumes[second] = replace(volumes[second])
    assert listed() == before
    volumes[second] = replace(volumes[second], published_node_ids=("node-2",))
    assert listed().entries[1].status.published_node_ids == ["node-2"]
    volumes[second] = replace(volumes[second], size_bytes=77 * MIB)
    assert listed().entries[1].volume.capacity_bytes == 77 * MIB
    assert listed(max_entries=1).next_token
    del volumes[second]
    assert not listed(max_entries=1).next_token, "the same entry, and nothing after it"
    volumes.clear()
    assert not listed().entries
    assert len(before.entries) == 2


def test_capacity(client: Client) -> None:
    answer = client.controller.GetCapacity(pb.GetCapacityRequest())
    assert answer.available_capacity == 1000 * MIB
    assert answer.maximum_volume_size.value == 500 * MIB
    assert answer.minimum_volume_size.value == MIB


@pytest.mark.parametrize(
    "asked",
    [
        {"accessible_topology": pb.Topology(segments={TOPOLOGY_KEY: "far"})},
        {"accessible_topology": pb.Topology(segments={"other/key": NODE})},
        {"accessible_topology": pb.Topology()},
        {"volume_capabilities": [capability(MODES.MULTI_NODE_SINGLE_WRITER)]},
        {"volume_capabilities": [capability(fs_type="ntfs")]},
        {"parameters": {"backend": "elsewhere"}},
        {"parameters": {"unknown": "key"}},
    ],
)
def test_what_cannot_be_made_here_has_no_room(client: Client, asked: dict[str, object]) -> None:
    answer = client.controller.GetCapacity(pb.GetCapacityRequest(**asked))
    assert answer.available_capacity == 0
    assert not answer.HasField("maximum_volume_size")


def test_what_can_be_made_here_has_room(client: Client) -> None:
    request = pb.GetCapacityRequest(
        accessible_topology=pb.Topology(segments={TOPOLOGY_KEY: NODE}),
        volume_capabilities=[raw_block()],
        parameters={"pool": "fast"} | EXTRAS,
    )
    assert client.controller.GetCapacity(request).available_capacity == 1000 * MIB
    assert client.backend.specs[0].parameters.pool == "fast"


def test_capacity_that_the_backend_does_not_know(serve) -> None:
    client = serve(fake=Small())
    with refuses("UNIMPLEMENTED", "implements the hook 'get_capacity'"):
        client.controller.GetCapacity(pb.GetCapacityRequest())


def validate(client: Client, volume: pb.Volume, *capabilities: pb.VolumeCapability, **more: object):
    return client.controller.ValidateVolumeCapabilities(
        pb.ValidateVolumeCapabilitiesRequest(
            volume_id=volume.volume_id, volume_capabilities=capabilities or [capability()], **more
        )
    )


def test_validate_confirms_what_was_asked(client: Client) -> None:
    volume = client.create(parameters={"pool": "fast"})
    asked = {"parameters": {"pool": "fast", "backend": "fake"} | EXTRAS, "volume_context": {"made": "here"}}
    answer = validate(client, volume, **asked)
    assert answer.message == ""
    assert answer.confirmed.volume_capabilities == [capability()]
    assert dict(answer.confirmed.parameters) == asked["parameters"]
    assert dict(answer.confirmed.volume_context) == asked["volume_context"]


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"parameters": {"pool": "slow"}}, "'pool' is 'fast', not 'slow'"),
        ({"parameters": {"backend": "other"}}, "no backend 'other'"),
        ({"volume_context": {"made": "there"}}, "'made' is 'here'"),
        ({"mutable_parameters": {"iops": "3"}}, "'iops'"),
    ],
)
def test_validate_says_why_not(client: Client, more: dict[str, object], text: str) -> None:
    answer = validate(client, client.create(parameters={"pool": "fast"}), **more)
    assert not answer.HasField("confirmed")
    assert text in answer.message


def test_validate_of_a_use_that_is_not_served(client: Client) -> None:
    answer = validate(client, client.create(), capability(), capability(MODES.MULTI_NODE_SINGLE_WRITER))
    assert not answer.HasField("confirmed")
    assert "MULTI_NODE_SINGLE_WRITER" in answer.message


def test_validate_of_an_unknown_volume(client: Client) -> None:
    for volume_id in ("fake/none", "malformed"):
        with refuses("NOT_FOUND"):
            validate(client, pb.Volume(volume_id=volume_id))


def expand(client: Client, volume: pb.Volume, wanted: pb.CapacityRange) -> pb.ControllerExpandVolumeResponse:
    request = pb.ControllerExpandVolumeRequest(volume_id=volume.volume_id, capacity_range=wanted)
    return client.controller.ControllerExpandVolume(request)


def test_expand(network: Client) -> None:
    volume = network.create(mib=10)
    assert expand(network, volume, size(20)).capacity_bytes == 20 * MIB
    assert expand(network, volume, size(15)).capacity_bytes == 20 * MIB
    assert expand(network, volume, size(20)).node_expansion_required
    with refuses("OUT_OF_RANGE", "cannot shrink"):
        expand(network, volume, size(0, 15))
    with refuses("OUT_OF_RANGE", "multiples of"):
        expand(network, volume, pb.CapacityRange(required_bytes=30 * MIB + 1, limit_bytes=30 * MIB + 2))
    with refuses("RESOURCE_EXHAUSTED", "the fake is full"):
        expand(network, volume, size(501))


def test_directories_need_no_node_expansion(serve) -> None:
    backend = Network()
    backend.description = replace(backend.description, filesystems=())
    client = serve(fake=backend)
    volume = client.create(volume_capabilities=[capability(fs_type="")])
    assert not expand(client, volume, size(20)).node_expansion_required


def test_node_local_volumes_are_grown_by_their_node(client: Client) -> None:
    with refuses("UNIMPLEMENTED", "NodeExpandVolume"):
        expand(client, client.create(), size(20))


def modify(client: Client, volume: pb.Volume, **mutable: str) -> None:
    request = pb.ControllerModifyVolumeRequest(volume_id=volume.volume_id, mutable_parameters=mutable)
    client.controller.ControllerModifyVolume(request)


def test_modify_keeps_what_is_not_named(client: Client) -> None:
    volume = client.create(mutable_parameters={"iops": "5", "burst": "7"})
    modify(client, volume, iops="6")
    (there,) = client.backend.volumes.values()
    assert there.recorded_mutable == {"iops": "6", "burst": "7"}
    assert (client.backend.specs[-1].iops, client.backend.specs[-1].burst) == (6, 7)


@pytest.mark.parametrize("wrong", [{"iops": "7", "latency": "low"}, {"iops": "7", "burst": "much"}])
def test_modify_applies_all_or_nothing(client: Client, wrong: dict[str, str]) -> None:
    volume = client.create(mutable_parameters={"iops": "5"})
    with refuses("INVALID_ARGUMENT"):
        modify(client, volume, **wrong)
    (there,) = client.backend.volumes.values()
    assert there.recorded_mutable == {"iops": "5"}
    with refuses("NOT_FOUND"):
        modify(client, pb.Volume(volume_id="fake/none"), iops="6")


def publish(client: Client, volume_id: str, **more: object) -> dict[str, str]:
    request = pb.ControllerPublishVolumeRequest(
        volume_id=volume_id, node_id="n1", volume_capability=capability(), **more
    )
    return dict(client.controller.ControllerPublishVolume(request).publish_context)


def test_publish_and_unpublish(network: Client) -> None:
    volume_id = network.create().volume_id
    assert publish(network, volume_id, readonly=True, secrets={"password": "p"}) == {"portal": "here"}
    (request,) = network.backend.published
    assert (request.node_id, request.read_only, request.secrets.password) == ("n1", True, "p")
    for node_id in ("n1", ""):
        network.controller.ControllerUnpublishVolume(
            pb.ControllerUnpublishVolumeRequest(volume_id=volume_id, node_id=node_id)
        )
    assert [node for _, node in network.backend.published[1:]] == ["n1", ""]
    with refuses("NOT_FOUND"):
        publish(network, "fake/none")
    network.controller.ControllerUnpublishVolume(pb.ControllerUnpublishVolumeRequest(volume_id="malformed"))


def test_publish_beside_a_backend_that_needs_it(serve) -> None:
    plain = Full(Network().description)
    client = serve(plain=plain, san=Network())
    assert publish(client, client.create().volume_id) == {}
    with refuses("NOT_FOUND"):
        publish(client, "plain/none")
    client.controller.ControllerUnpublishVolume(pb.ControllerUnpublishVolumeRequest(volume_id="plain/none"))


def test_publish_where_no_backend_needs_it(client: Client) -> None:
    with refuses("UNIMPLEMENTED", "'publish_volume'"):
        publish(client, client.create().volume_id)


def test_what_is_not_implemented_says_which_backend_and_hook(serve) -> None:
    client = serve(small=Small(), full=Full())
    volume = client.create("v", parameters={"backend": "small"})
    with refuses("UNIMPLEMENTED", "backend 'small' cannot do this: it does not implement create_snapshot"):
        client.controller.CreateSnapshot(pb.CreateSnapshotRequest(name="s", source_volume_id=volume.volume_id))
