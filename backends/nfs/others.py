"""What of the root's filesystem is neither free nor a volume's, and so can be promised to nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from backends.nfs.records import Record
from backends.nfs.sizing import Sizing

__all__ = ["others_bytes"]


def others_bytes(sizing: Sizing, records: Callable[[], Iterable[Record]], space: Callable[[], tuple[int, int]]) -> int:
    """Files of others, and what the filesystem keeps for itself.

    What is used beyond our own counts says it, as long as nothing of ours shares blocks: a shared one counts for each
    that has it. Else the counts of all that is not ours say at least its files, unless those share blocks themselves:
    so no more is taken for theirs than what is left beside the largest of each family of copies.

    Args:
        sizing: counts.
        records: of volumes and snapshots.
        space: answers total and free bytes of the filesystem.
    """
    sizing.settle()
    used_bytes = _used_bytes(space)
    ours = sizing.ours()
    counted = sizing.usages()
    ours |= sizing.ours()
    # Volumes are written to and removed meanwhile; the lesser is nearer to what was counted of them.
    used_bytes = min(used_bytes, _used_bytes(space))
    strangers_bytes = sum(counted.values()) - (ours_bytes := sum(counted.get(tree_id, 0) for tree_id in ours))
    families_bytes = sum(_largest_by_family(records(), counted).values())
    return max(0, used_bytes - ours_bytes, min(used_bytes - families_bytes, strangers_bytes))


def _largest_by_family(records: Iterable[Record], counted: dict[int, int]) -> dict[str, int]:
    """The largest of all that may share blocks, by the key that they come from."""
    by_key = {record.key: record for record in records}
    largest: dict[str, int] = {}
    for record in by_key.values():
        family = record.key
        while (member := by_key.get(family)) and (member.volume_key or member.source):
            family = member.volume_key or (member.source.handle if member.source else "")
        largest[family] = max(largest.get(family, 0), counted.get(record.tree_id, 0))
    return largest


def _used_bytes(space: Callable[[], tuple[int, int]]) -> int:
    total_bytes, free_bytes = space()
    return total_bytes - free_bytes
