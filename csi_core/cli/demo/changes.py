"""Changed and allocated blocks, as a backup program reads them, against a byte comparison."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

from csi_core._proto import csi_pb2 as pb
from csi_core.cli.demo.client import Client, MismatchError
from csi_core.cli.demo.content import BLOCK_BYTES, differing_blocks

__all__ = ["compare_snapshots"]

Restored = tuple[pb.Snapshot, Path]


def compare_snapshots(client: Client, subject: str, base: Restored, target: Restored) -> str:
    """Prove that GetMetadataDelta names every block in which two snapshots differ.

    Args:
        client: the driver.
        subject: the volume's name, for people.
        base, target: each snapshot with the device of a volume restored from it.

    Returns:
        What was found, for people.

    Raises:
        MismatchError: a block differs and was not named, or the answers are out of order.
    """
    (old, old_path), (new, new_path) = base, target
    allocated = client.stream(
        client.metadata.GetMetadataAllocated,
        pb.GetMetadataAllocatedRequest(snapshot_id=new.snapshot_id, max_results=100),
        subject,
    )
    delta = client.stream(
        client.metadata.GetMetadataDelta,
        pb.GetMetadataDeltaRequest(
            base_snapshot_id=old.snapshot_id, target_snapshot_id=new.snapshot_id, max_results=100
        ),
        subject,
    )
    data = _Ranges(subject, [block for answer in allocated for block in answer.block_metadata])
    changed = _Ranges(subject, [block for answer in delta for block in answer.block_metadata])
    differing = list(differing_blocks(old_path, new_path))
    missed = [offset for offset in differing if offset not in changed]
    if missed or not differing:
        raise MismatchError(
            f"{subject}: {len(missed)} of {len(differing)} changed blocks were not named, first at {missed[:1]}"
        )
    unmapped = [offset for offset in differing if offset not in data]
    if unmapped:
        raise MismatchError(f"{subject}: {len(unmapped)} blocks hold data and were not named, first at {unmapped[0]}")
    return (
        f"{subject}: all {len(differing)} changed blocks of 4 KiB were named "
        f"({changed.size_bytes // BLOCK_BYTES} named, {data.size_bytes // BLOCK_BYTES} hold data)"
    )


class _Ranges:
    """Ranges in ascending order, to look offsets up in."""

    def __init__(self, subject: str, blocks: Sequence[pb.BlockMetadata]) -> None:
        self._starts = [block.byte_offset for block in blocks]
        self._ends = [block.byte_offset + block.size_bytes for block in blocks]
        if any(end > start for end, start in zip(self._ends, self._starts[1:], strict=False)):
            raise MismatchError(f"{subject}: block ranges overlap or are out of order")
        self.size_bytes = sum(block.size_bytes for block in blocks)

    def __contains__(self, offset_bytes: int) -> bool:
        at = bisect_right(self._starts, offset_bytes) - 1
        return at >= 0 and offset_bytes < self._ends[at]
