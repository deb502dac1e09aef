"""btrfs: a subvolume for each volume and snapshot, limited by its qgroup, copied at one moment.

By ioctl, as a process for each volume would cost more than all the rest. Limits need ``btrfs quota enable``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

from backends.nfs.quota import ProjectUsage
from backends.nfs.sizing import DATA

__all__ = ["Subvolumes", "on_btrfs"]

_SYNC: Final = 0x9408
_SUBVOLUME_CREATE: Final = 0x5000940E
_SNAPSHOT_DESTROY: Final = 0x5000940F
_TREE_SEARCH: Final = 0xD0009411
_INODE_LOOKUP: Final = 0xD0009412
_WAIT_SYNC: Final = 0x40089416
_SNAPSHOT_CREATE: Final = 0x50009417
_QGROUP_CREATE: Final = 0x4010942A
_QGROUP_LIMIT: Final = 0x8030942B
_START_SYNC: Final = 0x80089418
_SUBVOLUME_INFO: Final = 0x81F8943C

_NAME_ARGS: Final = struct.Struct("=q4088s")
_NAME_ARGS_V2: Final = struct.Struct("=qQQ4Q4040s")
_QGROUP_ARGS: Final = struct.Struct("=QQ")
_LIMIT_ARGS: Final = struct.Struct("=6Q")
_LOOKUP: Final = struct.Struct("=QQ")
_LOOKUP_BYTES: Final = 4096
_SEARCH: Final = struct.Struct("=7Q4I4Q")
_SEARCH_BYTES: Final = 4096
_ITEM: Final = struct.Struct("=3Q2I")

_SUBVOLUME_INFO_BYTES: Final = 504
_CHANGED_OFFSET: Final = 8 + 256 + 4 * 8 + 3 * 16
"""Of ctransid in struct btrfs_ioctl_get_subvol_info_args."""

_QUOTA_TREE: Final = 8
_STATUS: Final = 240
_INFO: Final = 242
_LIMIT: Final = 244
_STATUS_ON: Final = 1
_LIMIT_REFERENCED: Final = 1
_LAST_SUBVOLUME: Final = (1 << 48) - 1
"""Of qgroups above, which an administrator may have made, the level stands in the bits beyond."""
_MOST_ITEMS: Final = 32
_FIRST_INODE: Final = 256
_NO_LIMIT: Final = (1 << 64) - 1


def on_btrfs(directory: int) -> bool:
    """Whether an open directory lies on btrfs: nothing else knows this call."""
    try:
        _tree_id(directory)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL):
            return False
        raise
    return True


class Subvolumes:
    """Each content a subvolume; its id is the subvolume's, and so is that of its qgroup.

    Args:
        root: any open directory of the filesystem; stays the caller's.
    """

    mechanism = "subvolumes and qgroups"
    snapshots = True
    counts = True

    def __init__(self, root: int) -> None:
        self._root = root
        self._ours: set[int] = set()
        self._mutex = threading.Lock()

    def enforced(self) -> bool:
        """Whether quotas are on."""
        status = self._item(_STATUS, 0)
        return status is not None and bool(struct.unpack_from("=3Q", status)[2] & _STATUS_ON)

    def adopt(self, ids: Iterable[int]) -> None:
        """The kernel never gives an id twice."""
        with self._mutex:
            self._ours |= set(ids)

    def make(self, parent: int) -> int:
        """An empty subvolume."""
        _ioctl(parent, _SUBVOLUME_CREATE, _NAME_ARGS.pack(0, DATA.encode()))
        return self._made(parent)

    def snapshot(self, source: int, parent: int) -> int:
        """A writable snapshot; what has reached the server is in it, written to the disk or not."""
        _ioctl(parent, _SNAPSHOT_CREATE, _NAME_ARGS_V2.pack(source, 0, 0, 0, 0, 0, 0, DATA.encode()))
        return self._made(parent)

    def version(self, content: int) -> int:
        """The transaction that changed the subvolume last; exact once all is committed (``sync``)."""
        answer = bytearray(_SUBVOLUME_INFO_BYTES)
        fcntl.ioctl(content, _SUBVOLUME_INFO, answer)
        return int(struct.unpack_from("=Q", answer, _CHANGED_OFFSET)[0])

    def limit(self, tree_id: int, limit_bytes: int) -> None:
        """What the subvolume refers to, shared with others or not."""
        bound = limit_bytes or _NO_LIMIT
        fcntl.ioctl(self._root, _QGROUP_LIMIT, _LIMIT_ARGS.pack(tree_id, _LIMIT_REFERENCED, bound, 0, 0, 0))

    def usage(self, tree_id: int) -> ProjectUsage:
        """As the qgroup says; it lags behind writes until they are committed."""
        info, limit = self._item(_INFO, tree_id), self._item(_LIMIT, tree_id)
        used_bytes = struct.unpack_from("=2Q", info)[1] if info else 0
        flags, bound = struct.unpack_from("=2Q", limit) if limit else (0, 0)
        limited = flags & _LIMIT_REFERENCED and bound != _NO_LIMIT
        return ProjectUsage(used_bytes, bound if limited else 0, 0)

    def settle(self) -> None:
        """Commit the transaction: until then the filesystem's own numbers are ahead of qgroups', or behind."""
        transaction = bytearray(8)
        fcntl.ioctl(self._root, _START_SYNC, transaction)
        fcntl.ioctl(self._root, _WAIT_SYNC, transaction)

    def usages(self) -> dict[int, int]:
        """As of the last commit."""
        items = self._items(_INFO, 0, _LAST_SUBVOLUME)
        return {tree_id: struct.unpack_from("=2Q", item)[1] for tree_id, item in items}

    def ours(self) -> frozenset[int]:
        """As far as they are adopted or made here."""
        with self._mutex:
            return frozenset(self._ours)

    def tree_id(self, directory: int) -> int:
        """The subvolume that the directory is, not the one that it lies in."""
        return _tree_id(directory) if os.fstat(directory).st_ino == _FIRST_INODE else 0

    def destroy(self, parent: int) -> bool:
        """The whole subvolume at once; the kernel frees its blocks in the background."""
        if os.stat(DATA, dir_fd=parent, follow_symlinks=False).st_ino != _FIRST_INODE:
            return False  # made while sizes were not enforced
        _ioctl(parent, _SNAPSHOT_DESTROY, _NAME_ARGS.pack(0, DATA.encode()))
        return True

    def forget(self, tree_id: int) -> None:
        """Remove the qgroup; newer kernels do so themselves, and none does while blocks are being freed."""
        with self._mutex:
            self._ours.discard(tree_id)
        with suppress(OSError):
            fcntl.ioctl(self._root, _QGROUP_CREATE, _QGROUP_ARGS.pack(0, tree_id))

    def sync(self, directory: int) -> None:
        """Commit everything: a limit is in no log that an fsync writes."""
        fcntl.ioctl(directory, _SYNC)

    def sync_all(self, directory: int) -> None:
        """The same."""
        fcntl.ioctl(directory, _SYNC)

    def _made(self, parent: int) -> int:
        directory = os.open(DATA, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            tree_id = _tree_id(directory)
        finally:
            os.close(directory)
        self.adopt([tree_id])
        return tree_id

    def _item(self, item_type: int, tree_id: int) -> bytes | None:
        """One item of the quota tree; None where there is none, or no quota tree."""
        return next((item for _, item in self._items(item_type, tree_id, tree_id)), None)

    def _items(self, item_type: int, first_id: int, last_id: int) -> Iterator[tuple[int, bytes]]:
        """Items of the quota tree, by id; none where there is no quota tree."""
        newest = (1 << 64) - 1
        while first_id <= last_id:
            request = bytearray(_SEARCH_BYTES)
            key = (_QUOTA_TREE, 0, 0, first_id, last_id, 0, newest, item_type, item_type, _MOST_ITEMS, 0, 0, 0, 0, 0)
            _SEARCH.pack_into(request, 0, *key)
            try:
                fcntl.ioctl(self._root, _TREE_SEARCH, request)
            except FileNotFoundError:
                return
            found = _SEARCH.unpack_from(request)[9]
            if not found:
                return
            start = _SEARCH.size
            for _ in range(found):
                _, _, tree_id, _, length = _ITEM.unpack_from(request, start)
                start += _ITEM.size
                yield tree_id, bytes(request[start : start + length])
                start += length
            first_id = tree_id + 1


def _tree_id(directory: int) -> int:
    request = bytearray(_LOOKUP_BYTES)
    _LOOKUP.pack_into(request, 0, 0, _FIRST_INODE)
    fcntl.ioctl(directory, _INODE_LOOKUP, request)
    return int(_LOOKUP.unpack_from(request)[0])


def _ioctl(directory: int, request: int, argument: bytes) -> None:
    fcntl.ioctl(directory, request, bytearray(argument))  # what cannot be changed has 1,024 bytes at most
