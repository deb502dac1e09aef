"""The compiled part of csi-core: extent maps of files.

Lists cross the border as ``bytes`` of unsigned 64-bit words in the machine's byte order; read one with
``memoryview(buffer).cast("Q")`` or ``struct.iter_unpack``:

- *extents*: four words each, ``"=4Q"``: offset in the file, offset on the filesystem's device, length
  (all in bytes), flags (FIEMAP's).
- *ranges*: two words each, ``"=2Q"``: offset in the file, length (both in bytes).

Both are ascending and never overlap. A buffer that is not such a list raises ``ValueError``. Calls of
the kernel and work on lists run without the GIL.
"""

from typing import Final

__all__ = [
    "EXTENT_LAST",
    "EXTENT_SHARED",
    "EXTENT_UNWRITTEN",
    "allocated_bytes",
    "clone_range",
    "data_ranges",
    "diff_extents",
    "fiemap",
    "merge_extents",
    "shared_bytes",
]

EXTENT_LAST: Final[int]
"""The last extent of the file."""
EXTENT_UNWRITTEN: Final[int]
"""Allocated and reads as zeros."""
EXTENT_SHARED: Final[int]
"""Shared with another file, or with another place in this one."""

def fiemap(fd: int, start_bytes: int = 0, length_bytes: int | None = None, *, sync: bool = True) -> bytes:
    """The extents of an open file that lie in a range (all of it by default), clipped to the range.

    ``sync`` writes the file's dirty pages back first. Raises ``OSError``: ``EOPNOTSUPP`` where the
    filesystem has no extent maps (tmpfs).
    """

def merge_extents(extents: bytes) -> bytes:
    """The same map in the fewest extents."""

def allocated_bytes(extents: bytes) -> int:
    """Bytes that are not holes."""

def shared_bytes(extents: bytes) -> int:
    """Bytes whose blocks another file (or another place in this one) has too."""

def data_ranges(extents: bytes) -> bytes:
    """The ranges that may hold data: all but holes and what is certain to read as zeros.

    Exact for a file that nobody writes to and whose map was read with ``sync``.
    """

def diff_extents(a: bytes, b: bytes) -> bytes:
    """The ranges in which the content of two files may differ; no change is missed.

    Meant for two snapshots of one volume: files on the same filesystem that nobody writes to and that
    both still exist, their maps read with ``sync``. Ranges are left out only where both have a hole or
    the same blocks in the same state; what cannot be told (compressed, inline) is always reported.
    """

def clone_range(
    source_fd: int,
    source_offset_bytes: int,
    length_bytes: int,
    target_fd: int,
    target_offset_bytes: int,
) -> None:
    """Make a range of the target share the blocks of a range of the source (FICLONERANGE).

    Multiples of the filesystem's block size; a length of 0 means up to the source's end. Raises
    ``OSError``: ``EOPNOTSUPP`` without reflink, ``EXDEV`` across filesystems, ``EINVAL``, ``ENOSPC``.
    """
