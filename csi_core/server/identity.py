"""The Identity service: who this driver is, what it does, and whether it is ready. Never touches a backend."""
# ruff: noqa: ARG002, N802 - gRPC gives the methods their names and arguments

from __future__ import annotations

import grpc
from google.protobuf.wrappers_pb2 import BoolValue

from csi_core._proto import csi_pb2 as pb
from csi_core._proto.csi_pb2_grpc import IdentityServicer
from csi_core.server.driver import Driver

__all__ = ["Identity"]


class Identity(IdentityServicer):
    """Answers the sidecars' first questions."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._info = pb.GetPluginInfoResponse(name=driver.name, vendor_version=driver.version)

    def GetPluginInfo(
        self, request: pb.GetPluginInfoRequest, context: grpc.ServicerContext
    ) -> pb.GetPluginInfoResponse:
        """Name and version."""
        return self._info

    def GetPluginCapabilities(
        self, request: pb.GetPluginCapabilitiesRequest, context: grpc.ServicerContext
    ) -> pb.GetPluginCapabilitiesResponse:
        """The services served, and how volumes grow."""
        service, expansion = pb.PluginCapability.Service, pb.PluginCapability.VolumeExpansion
        capabilities = []
        for name in sorted(self._driver.capabilities.plugin):
            if name in expansion.Type.keys():  # noqa: SIM118 - an enum wrapper, not a mapping
                of_type = pb.PluginCapability(volume_expansion=expansion(type=expansion.Type.Value(name)))
            else:
                of_type = pb.PluginCapability(service=service(type=service.Type.Value(name)))
            capabilities.append(of_type)
        return pb.GetPluginCapabilitiesResponse(capabilities=capabilities)

    def Probe(self, request: pb.ProbeRequest, context: grpc.ServicerContext) -> pb.ProbeResponse:
        """Ready once every backend has started (CSI "Probe")."""
        return pb.ProbeResponse(ready=BoolValue(value=self._driver.ready))
