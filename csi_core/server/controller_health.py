"""The Controller service: health of volumes (alpha in CSI 1.13, behind ``driver.alphaCapabilities``)."""
# ruff: noqa: ARG002, N802 - gRPC gives the methods their names and arguments

from __future__ import annotations

from contextlib import suppress

import grpc

from csi_core import deadline
from csi_core._proto import csi_pb2 as pb
from csi_core.errors import NotFound
from csi_core.server.codec.fields import check_id, check_map, not_negative
from csi_core.server.codec.health import encode_volume_health
from csi_core.server.driver import Driver, existing_volume
from csi_core.server.pagination import list_through

__all__ = ["HealthCalls"]


class HealthCalls:
    """Tells what is wrong with volumes, as their storage sees it."""

    _driver: Driver

    def ControllerGetVolumeHealth(
        self, request: pb.ControllerGetVolumeHealthRequest, context: grpc.ServicerContext
    ) -> pb.ControllerGetVolumeHealthResponse:
        """What is wrong with one volume."""
        self._driver.require("volume_health", "ControllerGetVolumeHealth")
        check_id(request.volume_id, "volume_id")
        check_map(request.secrets, "secrets")
        backend, handle = self._driver.router.by_id(request.volume_id)
        existing_volume(backend, handle)
        health = encode_volume_health(backend.name, handle, backend.volume_health(handle))
        return pb.ControllerGetVolumeHealthResponse(volume_health=health)

    def ControllerListVolumeHealth(
        self, request: pb.ControllerListVolumeHealthRequest, context: grpc.ServicerContext
    ) -> pb.ControllerListVolumeHealthResponse:
        """The health of every volume, healthy ones included, page by page."""
        self._driver.require("volume_health", "ControllerListVolumeHealth")
        not_negative(request.max_entries, "max_entries")
        check_map(request.secrets, "secrets")
        found, next_token = list_through(
            [backend for backend in self._driver.router.all if "volume_health" in backend.hooks],
            request.starting_token,
            request.max_entries,
            lambda backend, cursor, limit: backend.list_volumes(cursor, limit),
        )
        entries = []
        for backend, volume in found:
            deadline.check()
            with suppress(NotFound):  # deleted since it was listed
                problems = backend.volume_health(volume.handle)
                entries.append(encode_volume_health(backend.name, volume.handle, problems))
        return pb.ControllerListVolumeHealthResponse(entries=entries, next_token=next_token)
