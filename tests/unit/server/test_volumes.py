"""What the Controller service does with volumes that are there: growth, parameters, access, deletion."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_driver import (
    MIB,
    Client,
    Full,
    Network,
    Small,
    capability,
    refuses,
    size,
)

from csi_core._proto import csi_pb2 as pb


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
