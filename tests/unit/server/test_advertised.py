"""A call whose capability is not advertised is UNIMPLEMENTED, whatever hooks the backends have."""

from __future__ import annotations

from dataclasses import replace

import grpc
import pytest
from fake_driver import DESCRIPTION, Network, Small

from csi_core._proto import csi_pb2 as pb
from csi_core.model import Reach
from csi_core.parameters import Parameters

SERVICES = ("Controller", "Node", "GroupController", "SnapshotMetadata")
NEEDED = {
    "ControllerPublishVolume": "PUBLISH_UNPUBLISH_VOLUME",
    "ControllerUnpublishVolume": "PUBLISH_UNPUBLISH_VOLUME",
    "GetCapacity": "GET_CAPACITY",
    "CreateSnapshot": "CREATE_DELETE_SNAPSHOT",
    "DeleteSnapshot": "CREATE_DELETE_SNAPSHOT",
    "GetSnapshot": "GET_SNAPSHOT",
    "ListSnapshots": "LIST_SNAPSHOTS",
    "ControllerExpandVolume": "EXPAND_VOLUME",
    "ControllerModifyVolume": "MODIFY_VOLUME",
    "ControllerGetVolumeHealth": "GET_VOLUME_HEALTH",
    "ControllerListVolumeHealth": "LIST_VOLUME_HEALTH",
    "NodeExpandVolume": "EXPAND_VOLUME",
    "NodeGetVolumeHealth": "GET_VOLUME_HEALTH",
    "NodeGetStorageHealth": "GET_STORAGE_HEALTH",
    "CreateVolumeGroupSnapshot": "CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT",
    "DeleteVolumeGroupSnapshot": "CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT",
    "GetVolumeGroupSnapshot": "CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT",
    "GetMetadataAllocated": "SNAPSHOT_METADATA_SERVICE",
    "GetMetadataDelta": "SNAPSHOT_METADATA_SERVICE",
}
"""The calls that a plugin need not have, and the capability that says so (CSI 1.13, "RPC Interface")."""


def unimplemented(client):
    """The optional calls that this server has not, each asked with an empty request."""
    found = set()
    for service in SERVICES:
        for method in pb.DESCRIPTOR.services_by_name[service].methods:
            call = client.channel.unary_stream if method.server_streaming else client.channel.unary_unary
            make = getattr(pb, method.input_type.name)
            path = f"/{method.containing_service.full_name}/{method.name}"
            answer = call(
                path,
                request_serializer=make.SerializeToString,
                response_deserializer=getattr(pb, method.output_type.name).FromString,
            )
            try:
                list(answer(make())) if method.server_streaming else answer(make())
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    found.add(method.name)
    return found


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize(
    "plugin",
    [
        pytest.param(Small, id="small"),
        pytest.param(Network, id="network"),
        pytest.param(lambda: Network(reach=Reach.NODE_LOCAL), id="local-with-publish"),
        pytest.param(lambda: Network(replace(DESCRIPTION, mutable=Parameters)), id="nothing-to-modify"),
    ],
)
def test_a_call_is_served_where_its_capability_is_advertised_and_nowhere_else(serve, plugin, alpha):
    client = serve({"driver": {"alphaCapabilities": alpha}}, fake=plugin())
    capabilities = client.runtime.capabilities
    advertised = {
        "Controller": capabilities.controller,
        "Node": capabilities.node,
        "GroupController": capabilities.group,
        "SnapshotMetadata": capabilities.plugin,
    }
    methods = {m.name: s for s in SERVICES for m in pb.DESCRIPTOR.services_by_name[s].methods}
    missing = {call for call, capability in NEEDED.items() if capability not in advertised[methods[call]]}
    assert unimplemented(client) == missing
