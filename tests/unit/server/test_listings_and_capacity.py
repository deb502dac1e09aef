"""What the Controller service tells: listings, capacity, and whether a volume can be used in some way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_driver import (
    MIB,
    MODES,
    NODE,
    TOPOLOGY_KEY,
    Client,
    Full,
    Small,
    capability,
    raw_block,
    refuses,
)

from csi_core._proto import csi_pb2 as pb

EXTRAS = {"csi.storage.k8s.io/pvc/name": "data", "csi.storage.k8s.io/pvc/namespace": "shop"}


@pytest.mark.parametrize("page_size", [1, 2, 3, 4, 5, 7, 100, 0])
def test_a_listing_runs_through_all_backends(serve, page_size: int) -> None:
    client = serve(one=Full(), empty=Full(), two=Small())
    places = [(backend, letter * n) for backend, letter in (("one", "v"), ("two", "w")) for n in (1, 2, 3)]
    made = [client.create(name, parameters={"backend": backend}).volume_id for backend, name in places]
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


def test_a_class_with_wrong_parameters_has_room_so_that_creating_says_what_is_wrong(client: Client) -> None:
    answer = client.controller.GetCapacity(pb.GetCapacityRequest(parameters={"unknown": "key"}))
    assert answer.available_capacity == 1000 * MIB
    assert client.backend.specs[0].parameters == client.backend.description.parameters()


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
