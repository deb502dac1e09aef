"""The Node service: what is handed to the node side, and inline volumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fake_driver import DESCRIPTION, MIB, NODE, TOPOLOGY_KEY, Client, Full, capability, refuses, size

from csi_core._proto import csi_pb2 as pb
from csi_core.errors import NotFound
from csi_core.hookspecs import hookimpl
from csi_core.model import SizeRange

INLINE = "csi-" + "0123456789abcdef" * 4
EPHEMERAL = {"csi.storage.k8s.io/ephemeral": "true", "csi.storage.k8s.io/pod.name": "web-0"}


def publish_inline(client: Client, volume_id: str = INLINE, context: dict[str, str] | None = None, **more: object):
    request = pb.NodePublishVolumeRequest(
        volume_id=volume_id,
        target_path="/target",
        volume_capability=capability(fs_type=""),
        volume_context=EPHEMERAL | (context or {}),
        **more,
    )
    return client.node.NodePublishVolume(request)


def unpublish(client: Client, volume_id: str) -> None:
    client.node.NodeUnpublishVolume(pb.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path="/target"))


def test_info(client: Client, network: Client) -> None:
    here = client.node.NodeGetInfo(pb.NodeGetInfoRequest())
    assert here.node_id == NODE
    assert here.max_volumes_per_node == 7
    assert dict(here.accessible_topology.segments) == {TOPOLOGY_KEY: NODE}
    assert not network.node.NodeGetInfo(pb.NodeGetInfoRequest()).HasField("accessible_topology")


def test_the_least_limit_of_all_backends(serve) -> None:
    limits = {f"b{n}": Full(replace(DESCRIPTION, max_volumes_per_node=n)) for n in (0, 9, 4)}
    assert serve(**limits).node.NodeGetInfo(pb.NodeGetInfoRequest()).max_volumes_per_node == 4


def test_a_volume_through_its_life(client: Client) -> None:
    volume_id = client.create().volume_id
    handle = volume_id.removeprefix("fake/")
    use = {"volume_id": volume_id, "volume_capability": capability(flags=("noatime",)), "secrets": {"password": "p"}}
    context = {
        "volume_context": {"made": "here", "csi.storage.k8s.io/pod.name": "web-0"},
        "publish_context": {"a": "b"},
    }
    client.node.NodeStageVolume(pb.NodeStageVolumeRequest(staging_target_path="/stage", **use, **context))
    client.node.NodePublishVolume(
        pb.NodePublishVolumeRequest(
            staging_target_path="/stage", target_path="/target", readonly=True, **use, **context
        )
    )
    usage = client.node.NodeGetVolumeStats(
        pb.NodeGetVolumeStatsRequest(volume_id=volume_id, volume_path="/target")
    ).usage
    client.node.NodeUnpublishVolume(pb.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path="/target"))
    client.node.NodeUnstageVolume(pb.NodeUnstageVolumeRequest(volume_id=volume_id, staging_target_path="/stage"))
    stage, publish, *rest = client.fake_node.calls
    assert stage[:2] == ("stage", "fake")
    assert (stage[2].handle, stage[2].staging_path) == (handle, Path("/stage"))
    assert (stage[2].context, stage[2].publish_context) == ({"made": "here"}, {"a": "b"})
    assert stage[2].capability.mount_flags == ("noatime",)
    assert stage[2].secrets.password == "p"
    assert (publish[2].staging_path, publish[2].target_path) == (Path("/stage"), Path("/target"))
    assert publish[2].read_only
    assert rest == [
        ("stats", "fake", handle, Path("/target")),
        ("unpublish", "fake", handle, Path("/target")),
        ("unstage", "fake", handle, Path("/stage")),
    ]
    assert [(u.unit, u.total, u.used, u.available) for u in usage] == [
        (pb.VolumeUsage.BYTES, 10, 4, 6),
        (pb.VolumeUsage.INODES, 5, 0, 0),
    ]


def test_what_is_not_there_cannot_be_used_but_can_be_cleaned_up(client: Client) -> None:
    use = {"volume_id": "fake/none", "staging_target_path": "/s", "volume_capability": capability()}
    with refuses("NOT_FOUND"):
        client.node.NodeStageVolume(pb.NodeStageVolumeRequest(**use))
    with refuses("NOT_FOUND"):
        client.node.NodePublishVolume(pb.NodePublishVolumeRequest(target_path="/t", **use))
    assert not client.fake_node.calls
    unpublish(client, "fake/none")
    client.node.NodeUnstageVolume(pb.NodeUnstageVolumeRequest(volume_id="fake/none", staging_target_path="/s"))
    assert [call[0] for call in client.fake_node.calls] == ["unpublish", "unstage"]


def test_expand(client: Client) -> None:
    volume_id = client.create(mib=10).volume_id

    def expand(**more: object) -> int:
        request = pb.NodeExpandVolumeRequest(volume_id=volume_id, volume_path="/target", **more)
        return client.node.NodeExpandVolume(request).capacity_bytes

    assert expand(capacity_range=size(20), volume_capability=capability()) == 20 * MIB
    assert client.fake_node.calls[-1][3:5] == (Path("/target"), SizeRange(20 * MIB))
    assert expand() == 20 * MIB
    with refuses("OUT_OF_RANGE"):
        expand(capacity_range=size(0, 15))
    with refuses("INVALID_ARGUMENT"):
        expand(capacity_range=size(20, 15))


def test_an_inline_volume_is_made_and_deleted_with_its_pod(client: Client) -> None:
    publish_inline(client, context={"size": "64Mi", "pool": "fast"}, secrets={"password": "p"})
    ((call, backend, volume_id, spec, publish),) = client.fake_node.calls
    assert (call, backend, volume_id, spec.name) == ("publish_ephemeral", "fake", INLINE, INLINE)
    assert spec.size == SizeRange(64 * MIB)
    assert spec.parameters.pool == "fast"
    assert spec.secrets.password == "p"
    assert (publish.staging_path, publish.target_path) == (None, Path("/target"))
    client.backend.create_volume(spec)
    publish_inline(client, context={"size": "64Mi", "pool": "fast"})
    with refuses("ALREADY_EXISTS"):
        publish_inline(client, context={"size": "64Mi", "pool": "slow"})
    unpublish(client, INLINE)
    assert client.fake_node.calls[-1] == ("unpublish_ephemeral", "fake", INLINE, Path("/target"))


def test_an_inline_volume_without_a_size_has_the_default_one(client: Client) -> None:
    publish_inline(client)
    assert client.fake_node.calls[0][3].size == SizeRange(DESCRIPTION.default_size_bytes)


def test_an_inline_volume_is_found_by_its_id(serve) -> None:
    client = serve(one=Full(), two=Full())
    publish_inline(client, context={"backend": "two"})
    made = client.fake_node.calls[0]
    assert made[1] == "two"
    client.runtime.router.all[1].create_volume(made[3])
    client.node.NodeGetVolumeStats(pb.NodeGetVolumeStatsRequest(volume_id=INLINE, volume_path="/target"))
    assert client.fake_node.calls[1][:2] == ("stats", "two")
    unpublish(client, INLINE)
    assert client.fake_node.calls[2][:2] == ("unpublish_ephemeral", "two")


def test_a_claim_s_volume_is_never_taken_for_an_inline_one(client: Client) -> None:
    client.create("pvc-precious")
    with refuses("NOT_FOUND", "no inline one"):
        unpublish(client, "pvc-precious")
    with refuses("ALREADY_EXISTS"):
        publish_inline(client, "pvc-precious")
    assert not client.fake_node.calls


@pytest.mark.parametrize(
    ("context", "text"),
    [
        ({"size": "big"}, "volume attribute 'size': 'big' is not a size"),
        ({"pol": "x"}, "did you mean 'pool'?"),
        ({"siz": "1Gi"}, "size, backend"),
        ({"backend": "other"}, "no backend 'other'"),
    ],
)
def test_wrong_attributes_of_an_inline_volume(client: Client, context: dict[str, str], text: str) -> None:
    with refuses("INVALID_ARGUMENT", text):
        publish_inline(client, context=context)


def test_inline_volumes_where_they_are_not_served(serve) -> None:
    client = serve(fake=Full(replace(DESCRIPTION, ephemeral=False)))
    with refuses("INVALID_ARGUMENT", "use a claim"):
        publish_inline(client)
    with refuses("NOT_FOUND"):
        unpublish(client, INLINE)


def test_health_is_alpha(client: Client, serve) -> None:
    calls = {
        "ControllerGetVolumeHealth": pb.ControllerGetVolumeHealthRequest(volume_id="fake/none"),
        "ControllerListVolumeHealth": pb.ControllerListVolumeHealthRequest(),
        "NodeGetVolumeHealth": pb.NodeGetVolumeHealthRequest(volume_id="fake/none"),
        "NodeGetStorageHealth": pb.NodeGetStorageHealthRequest(),
    }
    for call, request in calls.items():
        with refuses("UNIMPLEMENTED", "alphaCapabilities: true"):
            getattr(client.node if call.startswith("Node") else client.controller, call)(request)

    alpha = serve({"driver": {"alphaCapabilities": True}})
    for call in ("ControllerGetVolumeHealth", "NodeGetVolumeHealth"):
        with refuses("NOT_FOUND"):
            getattr(alpha.node if call.startswith("Node") else alpha.controller, call)(calls[call])
    volume_id = alpha.create().volume_id
    entry = pb.VolumeHealth.VolumeHealthEntry(status=pb.DEGRADED, reason="NearlyFull", message="95 % used")
    health = pb.VolumeHealth(volume_id=volume_id, health_statuses=[entry])
    get = alpha.controller.ControllerGetVolumeHealth(pb.ControllerGetVolumeHealthRequest(volume_id=volume_id))
    assert get.volume_health == health
    on_node = alpha.node.NodeGetVolumeHealth(pb.NodeGetVolumeHealthRequest(volume_id=volume_id))
    assert on_node.volume_health == health
    listed = alpha.controller.ControllerListVolumeHealth(pb.ControllerListVolumeHealthRequest())
    assert list(listed.entries) == [health]
    storage = alpha.node.NodeGetStorageHealth(pb.NodeGetStorageHealthRequest()).backend_health
    assert [(s.status, s.reason, s.message) for s in storage] == [(pb.STORAGE_DEGRADED, "NearlyFull", "95 % used")]


class Vanishing(Full):
    """A volume is deleted between the listing and the look at it."""

    @hookimpl
    def volume_health(self, handle):
        if handle == max(self.volumes):
            raise NotFound(f"there is no volume {handle}")
        return self.problems


def test_a_volume_that_goes_while_health_is_listed_takes_no_other_along(serve) -> None:
    client = serve({"driver": {"alphaCapabilities": True}}, fake=Vanishing())
    made = sorted(client.create("v" * n).volume_id for n in (1, 2, 3))
    listed = client.controller.ControllerListVolumeHealth(pb.ControllerListVolumeHealthRequest())
    assert [health.volume_id for health in listed.entries] == made[:2]
