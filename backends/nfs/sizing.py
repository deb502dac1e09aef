"""How the filesystem under the root keeps a volume within its size: project quotas, or nothing at all.

btrfs has its own way in :mod:`backends.nfs.btrfs`.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterable
from typing import Final, Protocol

from backends.nfs import quota

__all__ = ["DATA", "ProjectQuotas", "Sizing", "Unsized"]

_libc: Final = ctypes.CDLL(None, use_errno=True)

DATA: Final = "data"
"""The directory of an object that holds its content."""


class Sizing(Protocol):
    """Makes the directories that hold the content of volumes and snapshots, and limits what goes into them.

    Each has an *id* (a project, a subvolume) by which its use is counted. Directories are open ones.
    """

    mechanism: str
    """How, for people."""
    snapshots: bool
    """Whether a whole tree can be copied at one moment."""
    counts: bool
    """Whether ``usage`` knows what is used."""

    def enforced(self) -> bool:
        """Whether the filesystem counts and limits at this moment."""

    def adopt(self, ids: Iterable[int]) -> None:
        """These are in use; at start."""

    def make(self, parent: int) -> int:
        """Make the content's directory in ``parent``, empty and without a limit; answer its id."""

    def snapshot(self, source: int, parent: int) -> int:
        """Make it as a copy of the content ``source`` as of one moment; where ``snapshots`` says so."""

    def version(self, content: int) -> int:
        """A number that stays while nothing in the content changes; 0 where the filesystem keeps none.

        A copy by ``snapshot`` begins with its source's.
        """

    def limit(self, tree_id: int, limit_bytes: int) -> None:
        """Let the content have this many bytes at most; 0 for no limit."""

    def usage(self, tree_id: int) -> quota.ProjectUsage:
        """What it has and may have."""

    def settle(self) -> None:
        """Have the counts, and what the filesystem says is used, be of one moment."""

    def usages(self) -> dict[int, int]:
        """Used bytes by id, of all that the filesystem counts, whoever has it."""

    def ours(self) -> frozenset[int]:
        """The ids that were adopted or made, and not forgotten."""

    def tree_id(self, directory: int) -> int:
        """The id of the content's directory; 0 where it has none."""

    def destroy(self, parent: int) -> bool:
        """Remove the content at once where that is possible; else answer False, and its files are to be removed."""

    def forget(self, tree_id: int) -> None:
        """Nothing has this id any more."""

    def sync(self, directory: int) -> None:
        """Make durable what was made in ``directory``, limits included."""

    def sync_all(self, directory: int) -> None:
        """Make durable all data of a tree that was filled."""


class Unsized:
    """``sizeEnforcement: none``: directories, whatever they lie on."""

    mechanism = "sizes are not enforced"
    snapshots = False
    counts = False

    def enforced(self) -> bool:
        """Nobody asked for it."""
        return True

    def adopt(self, ids: Iterable[int]) -> None:
        """There are none."""

    def make(self, parent: int) -> int:
        """A directory."""
        os.mkdir(DATA, 0o700, dir_fd=parent)
        return 0

    def snapshot(self, source: int, parent: int) -> int:
        """Never called."""
        raise NotImplementedError

    def version(self, content: int) -> int:  # noqa: ARG002
        """None but times."""
        return 0

    def limit(self, tree_id: int, limit_bytes: int) -> None:
        """Nothing is enforced."""

    def usage(self, tree_id: int) -> quota.ProjectUsage:  # noqa: ARG002
        """Nothing is counted."""
        return quota.ProjectUsage(0, 0, 0)

    def settle(self) -> None:
        """They are."""

    def usages(self) -> dict[int, int]:
        """Nothing is counted."""
        return {}

    def ours(self) -> frozenset[int]:
        """There are none."""
        return frozenset()

    def tree_id(self, directory: int) -> int:  # noqa: ARG002
        """None."""
        return 0

    def destroy(self, parent: int) -> bool:  # noqa: ARG002
        """File by file."""
        return False

    def forget(self, tree_id: int) -> None:
        """There are none."""

    def sync(self, directory: int) -> None:
        """The journal keeps the order of what came before."""
        os.fsync(directory)

    def sync_all(self, directory: int) -> None:
        """One flush of the filesystem; one for each file of a tree would cost more."""
        if _libc.syncfs(directory) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


class ProjectQuotas(Unsized):
    """XFS and ext4: a project id for each volume and snapshot.

    Args:
        root: any open directory of the filesystem; stays the caller's.
        first_id: ids from here on are this backend's.
    """

    mechanism = "project quotas"
    counts = True

    def __init__(self, root: int, first_id: int) -> None:
        self._root = root
        self._next = first_id
        self._taken: set[int] = set()
        self._mutex = threading.Lock()

    def enforced(self) -> bool:
        """Ask the kernel."""
        return quota.enforced(self._root)

    def adopt(self, ids: Iterable[int]) -> None:
        """Hand none of them out."""
        with self._mutex:
            self._taken |= set(ids)

    def make(self, parent: int) -> int:
        """A directory with a project id that nobody has."""
        project_id = self._new_id()
        os.mkdir(DATA, 0o700, dir_fd=parent)
        directory = os.open(DATA, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            quota.set_project(directory, project_id)
        finally:
            os.close(directory)
        return project_id

    def limit(self, tree_id: int, limit_bytes: int) -> None:
        """One system call."""
        quota.set_limit(self._root, tree_id, limit_bytes)

    def usage(self, tree_id: int) -> quota.ProjectUsage:
        """One system call."""
        return quota.read(self._root, tree_id)

    def usages(self) -> dict[int, int]:
        """One system call for each; 0 is what has no project id."""
        return dict(quota.read_all(self._root))

    def ours(self) -> frozenset[int]:
        """Those of copies under way are among them."""
        with self._mutex:
            return frozenset(self._taken)

    def tree_id(self, directory: int) -> int:
        """Its project id."""
        return quota.project_of(directory)

    def forget(self, tree_id: int) -> None:
        """The id may be handed out again."""
        quota.set_limit(self._root, tree_id, 0)
        with self._mutex:
            self._taken.discard(tree_id)

    def _new_id(self) -> int:
        with self._mutex:
            # One that somebody else counts files by is passed over.
            while self._next in self._taken or quota.read(self._root, self._next).inodes:
                self._next += 1
            self._taken.add(self._next)
            self._next += 1
            return self._next - 1
