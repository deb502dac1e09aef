"""Read-only raw block volumes.

A read-only bind of a device node does not stop writes: the flag is about the node, not the device. So
the device itself is made read-only (BLKROSET), which the kernel honours for descriptors opened before
as well, and a pod cannot undo without CAP_SYS_ADMIN. As that holds for all of a node's users of the
device, a volume is published read-only or writable on a node, never both; the bind's own ``ro`` flag
records which. The flag outlives a detach of a loop device: unstage clears it, and so does whoever is to write next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from csi_core.errors import FailedPrecondition
from csi_core.node.mountinfo import Mount
from csi_core.node.requests import NodePublishRequest

if TYPE_CHECKING:
    from csi_core.node.mounts import Mounts

__all__ = ["settle_device_mode"]


def settle_device_mode(mounts: Mounts, staged: Mount, published: Sequence[Mount], request: NodePublishRequest) -> None:
    """Make a staged device read-only or writable, for one more publish of it.

    A device that was attached read-only stays so: BLKROSET cannot lift that.

    Args:
        mounts: of this node.
        staged: the device file in the staging directory.
        published: where the device is published already.
        request: the publish at hand.

    Raises:
        FailedPrecondition: it is published in the other mode.
    """
    read_only = request.effective_read_only
    if conflicting := next((m for m in published if m.read_only != read_only), None):
        raise FailedPrecondition(
            f"the device is published {'writable' if read_only else 'read-only'} at {conflicting.path}; "
            "on one node a raw block volume is either writable or read-only"
        )
    mounts.set_device_read_only(staged.path, read_only)
