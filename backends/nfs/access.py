"""Which nodes may have a volume at once. The server keeps it: a node that is not let in cannot mount."""

from __future__ import annotations

from dataclasses import replace

from backends.nfs.records import Publication, Record
from csi_core.errors import AlreadyExists, FailedPrecondition
from csi_core.model import AccessMode, PublishRequest

__all__ = ["admitted", "without"]


def admitted(record: Record, request: PublishRequest, addresses: tuple[str, ...]) -> Record:
    """The record with one more node; the same one where the node is in already.

    A node that comes again from other addresses is let in from them, too: it may still hold files from the old ones.

    Raises:
        AlreadyExists: it is in with other arguments.
        FailedPrecondition: the access modes leave no room beside the nodes that are in.
    """
    mode = request.capability.access_mode
    wanted = Publication(addresses, request.read_only or mode.read_only, mode)
    present = record.publications.get(request.node_id)
    if present:
        if (present.read_only, present.access_mode) != (wanted.read_only, wanted.access_mode):
            raise AlreadyExists(
                f"volume {record.key} is published to node {request.node_id} {_said(present)}, "
                f"and not {_said(wanted)}; unpublish it there first"
            )
        if set(addresses) <= set(present.addresses):
            return record
        wanted = replace(wanted, addresses=tuple(sorted({*present.addresses, *addresses})))
    for node_id, other in record.publications.items():
        if node_id != request.node_id:
            _refuse_beside(record, wanted, node_id, other)
    return replace(record, publications={**record.publications, request.node_id: wanted})


def without(record: Record, node_id: str) -> Record:
    """The record without a node, or ("") without any."""
    left = {node: publication for node, publication in record.publications.items() if node_id not in ("", node)}
    return replace(record, publications=left)


def _refuse_beside(record: Record, wanted: Publication, node_id: str, other: Publication) -> None:
    if not (wanted.access_mode.multi_node and other.access_mode.multi_node):
        raise FailedPrecondition(
            f"volume {record.key} is for one node, and node {node_id} has it; unpublish it there first"
        )
    single = AccessMode.MULTI_NODE_SINGLE_WRITER
    if single in (wanted.access_mode, other.access_mode) and not (wanted.read_only or other.read_only):
        raise FailedPrecondition(f"volume {record.key} is for one writer, and node {node_id} writes to it")
    if wanted.read_only != other.read_only and set(wanted.addresses) & set(other.addresses):
        raise FailedPrecondition(f"node {node_id} has the same address, and volume {record.key} {_said(other)}")


def _said(publication: Publication) -> str:
    return f"{'read-only' if publication.read_only else 'read-write'} as {publication.access_mode.value}"
