"""The SnapshotMetadata service: which blocks of a snapshot hold data, and which changed since another one."""
# ruff: noqa: ARG002, N802 - gRPC gives the methods their names and arguments

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import grpc

from csi_core import deadline
from csi_core._proto import csi_pb2 as pb
from csi_core._proto.csi_pb2_grpc import SnapshotMetadataServicer
from csi_core.errors import FailedPrecondition, InvalidArgument, OutOfRange, StorageFailure
from csi_core.model import BlockMap, BlockRange
from csi_core.server.codec.fields import check_id, check_map, not_negative
from csi_core.server.codec.parameters import parse_secrets
from csi_core.server.driver import Driver, existing_snapshot, snapshot_key

if TYPE_CHECKING:
    from csi_core.facade import Backend
    from csi_core.model import Snapshot

__all__ = ["SnapshotMetadata"]

MAX_TUPLES_PER_MESSAGE = 4096
"""Above the client's wish: keeps a message far below gRPC's 4 MiB."""


class SnapshotMetadata(SnapshotMetadataServicer):
    """Streams block ranges. The snapshots cannot be deleted while they are being read."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def GetMetadataAllocated(
        self, request: pb.GetMetadataAllocatedRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.GetMetadataAllocatedResponse]:
        """The ranges that hold data."""
        driver = self._driver
        driver.require("allocated_blocks", "GetMetadataAllocated")
        check_id(request.snapshot_id, "snapshot_id")
        limit = _tuples_per_message(request.max_results)
        check_map(request.secrets, "secrets")
        backend, handle = driver.router.by_id(request.snapshot_id)
        parse_secrets(backend.description, request.secrets)
        with driver.locks.hold("GetMetadataAllocated", shared=(snapshot_key(backend, handle),)):
            _readable(backend, handle, request.starting_offset)
            blocks = backend.allocated_blocks(handle, request.starting_offset)
            for kind, ranges in _messages(blocks, request.starting_offset, limit):
                yield pb.GetMetadataAllocatedResponse(
                    block_metadata_type=kind, volume_capacity_bytes=blocks.volume_size_bytes, block_metadata=ranges
                )

    def GetMetadataDelta(
        self, request: pb.GetMetadataDeltaRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.GetMetadataDeltaResponse]:
        """The ranges that differ between two snapshots of one volume."""
        driver = self._driver
        driver.require("changed_blocks", "GetMetadataDelta")
        check_id(request.base_snapshot_id, "base_snapshot_id")
        check_id(request.target_snapshot_id, "target_snapshot_id")
        limit = _tuples_per_message(request.max_results)
        check_map(request.secrets, "secrets")
        backend, base = driver.router.by_id(request.base_snapshot_id)
        owner, target = driver.router.by_id(request.target_snapshot_id)
        if owner is not backend:
            raise InvalidArgument(f"the snapshots are of two backends, {backend.name!r} and {owner.name!r}")
        parse_secrets(backend.description, request.secrets)
        keys = (snapshot_key(backend, base), snapshot_key(backend, target))
        with driver.locks.hold("GetMetadataDelta", shared=keys):
            first = existing_snapshot(backend, base)
            if first.volume_handle != _readable(backend, target, request.starting_offset).volume_handle:
                raise InvalidArgument("base_snapshot_id and target_snapshot_id are snapshots of two different volumes")
            blocks = backend.changed_blocks(base, target, request.starting_offset)
            for kind, ranges in _messages(blocks, request.starting_offset, limit):
                yield pb.GetMetadataDeltaResponse(
                    block_metadata_type=kind, volume_capacity_bytes=blocks.volume_size_bytes, block_metadata=ranges
                )


def _tuples_per_message(max_results: int) -> int:
    not_negative(max_results, "max_results")
    return min(max_results or MAX_TUPLES_PER_MESSAGE, MAX_TUPLES_PER_MESSAGE)


def _readable(backend: Backend, handle: str, starting_offset: int) -> Snapshot:
    """The snapshot, if it is there, complete, and the offset lies within it.

    Raises:
        NotFound, FailedPrecondition, OutOfRange: in this order.
    """
    snapshot = existing_snapshot(backend, handle)
    if not snapshot.ready:
        raise FailedPrecondition(f"snapshot {handle!r} is not ready yet; wait until ready_to_use is true")
    if not 0 <= starting_offset <= snapshot.size_bytes:
        raise OutOfRange(f"starting_offset {starting_offset} is outside the snapshot's {snapshot.size_bytes} bytes")
    return snapshot


def _messages(
    blocks: BlockMap, starting_offset: int, limit: int
) -> Iterator[tuple[pb.BlockMetadataType.ValueType, list[pb.BlockMetadata]]]:
    """Batches of at most ``limit`` tuples; one empty batch where there are none, as it tells the capacity."""
    kind = pb.FIXED_LENGTH if blocks.block_size_bytes else pb.VARIABLE_LENGTH
    batch: list[pb.BlockMetadata] = []
    sent = False
    for block in _in_order(blocks, starting_offset):
        batch.append(pb.BlockMetadata(byte_offset=block.offset_bytes, size_bytes=block.size_bytes))
        if len(batch) == limit:
            deadline.check()
            yield kind, batch
            batch, sent = [], True
    if batch or not sent:
        yield kind, batch


def _in_order(blocks: BlockMap, starting_offset: int) -> Iterator[BlockRange]:
    """The backend's ranges, those before the offset left out, held to the promises that CSI makes for them."""
    end_bytes = 0
    for block in blocks.ranges:
        if block.offset_bytes < end_bytes or block.size_bytes <= 0:
            raise StorageFailure(f"the backend's block ranges overlap or go back at offset {block.offset_bytes}")
        end_bytes = block.offset_bytes + block.size_bytes
        if end_bytes > starting_offset:
            yield block
