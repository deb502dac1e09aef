"""The compiled part of csi-core: the extent allocator, and extent maps of files.

Lists cross the border as ``bytes`` of unsigned 64-bit words in the machine's byte order; read one with
``memoryview(buffer).cast("Q")`` or ``struct.iter_unpack``:

- *runs* of a pool: three words each, ``"=3Q"``: segment, first extent, length in extents;
- *held runs*: four words each, ``"=4Q"``: a run and ``HELD_OWNED``, ``HELD_SHARED`` or ``HELD_QUARANTINED``;
- *shared runs*: four words each, ``"=4Q"``: a run and the number of its owners;
- *lengths*: one word each, in extents;
- *extents* of a file: four words each, ``"=4Q"``: offset in the file, offset on the filesystem's device,
  length (all in bytes), flags (FIEMAP's);
- *ranges* of a file: two words each, ``"=2Q"``: offset in the file, length (both in bytes).

Extents, ranges, and runs that are listed (not those that were just allocated) are ascending and never
overlap. A buffer that is not such a list raises ``ValueError``, a number below 0 or too large for its word
``OverflowError``. Calls of the kernel and work on lists run without the GIL.
"""

from collections.abc import Sequence
from typing import Final, TypedDict, final, type_check_only

__all__ = [
    "DEFAULT_EXTENT_BYTES",
    "EXTENT_LAST",
    "EXTENT_SHARED",
    "EXTENT_UNWRITTEN",
    "HELD_OWNED",
    "HELD_QUARANTINED",
    "HELD_SHARED",
    "MAX_EXTENT_BYTES",
    "MIN_EXTENT_BYTES",
    "ExtentPool",
    "RunConflictError",
    "allocated_bytes",
    "clone_range",
    "data_ranges",
    "diff_extents",
    "fiemap",
    "merge_extents",
    "shared_bytes",
]

DEFAULT_EXTENT_BYTES: Final[int]
"""1 MiB."""
MIN_EXTENT_BYTES: Final[int]
"""64 KiB."""
MAX_EXTENT_BYTES: Final[int]
"""64 MiB."""
HELD_OWNED: Final[int]
"""Held by one owner alone."""
HELD_SHARED: Final[int]
"""Held by an owner beside others: may overlap other shared runs, and each counts as one owner."""
HELD_QUARANTINED: Final[int]
"""Held by nobody any more, but not zeroed yet."""

class RunConflictError(ValueError):
    """Runs that contradict each other or the pool: corruption, or a caller's mistake. The message names them."""

    runs: tuple[tuple[int, int, int], ...]
    """The runs that the message names, as (segment, start, length)."""
    positions: tuple[int, ...]
    """Where they stood in the list that was given; () where there was no list."""

@type_check_only
class _Statistics(TypedDict):
    extents: int
    free_extents: int
    quarantined_extents: int
    shared_extents: int
    free_runs: int
    quarantined_runs: int
    longest_free_run: int
    """In extents."""
    fragmentation: float
    """Ceph's figure: (free runs - 1) / (free extents - 1); 0 in one piece, 1 all single extents."""
    free_run_histogram: list[int]
    """Entry n counts the free runs of 2**n to 2**(n + 1) - 1 extents; as long as the longest asks for."""
    memory_bytes: int
    """Grows with the free, quarantined and shared runs."""
    fixed_memory_bytes: int
    """Grows with the pool; pages never written to cost nothing."""

@final
class ExtentPool:
    """Which extents of a pool are free, and where new runs go. All methods may be called by any thread.

    A pool has segments (devices or preallocated files), each a row of extents of one size. Lengths and
    starts are in extents; a run is (segment, start, length) and never crosses segments. Full is ``None``;
    ``ValueError`` is for requests that make no sense, ``RunConflictError`` for runs that cannot be right.
    """

    def __new__(cls, segments: Sequence[int], *, extent_bytes: int = 1048576) -> ExtentPool:
        """A pool of segments of so many extents each, all of them free."""

    @staticmethod
    def rebuild(segments: Sequence[int], held: bytes, *, extent_bytes: int = 1048576) -> ExtentPool:
        """A pool from its segments' lengths and every held run, in any order.

        Raises ``RunConflictError`` with ``positions`` where two of them claim the same extents and are not
        both ``HELD_SHARED``, or where one is empty, reaches beyond its segment or names one that is not there.
        """

    @property
    def extent_bytes(self) -> int:
        """What an extent measures."""

    @property
    def extents(self) -> int:
        """All extents of all segments."""

    @property
    def free_extents(self) -> int:
        """Extents that can be allocated now."""

    @property
    def longest_free_run(self) -> int:
        """The longest run that can be allocated now, in extents."""

    def segment_extents(self, segment: int) -> int:
        """How long a segment is, in extents."""

    def add_segment(self, extents: int) -> int:
        """Adds a segment, all of it free; returns its number."""

    def grow_segment(self, segment: int, extents: int) -> None:
        """Lengthens a segment to ``extents`` in all; what is new is free. Repeating it changes nothing."""

    def allocate(self, length: int, *, alignment: int = 1, room: int = 0) -> tuple[int, int, int] | None:
        """Takes one run, from nearly the shortest free run that is long enough.

        ``alignment``: the run begins at a multiple of this power of two. ``room``: the run is expected to
        grow by so much; leave that behind it (and before it, for the neighbour) where any place has it.
        """

    def allocate_batch(self, lengths: bytes, *, alignment: int = 1) -> bytes | None:
        """Takes one run for each length, in their order, or nothing at all."""

    def allocate_scattered(self, length: int, max_runs: int) -> bytes | None:
        """Takes ``length`` extents in as few runs as can be, ``max_runs`` at most."""

    def extend(self, segment: int, start: int, length: int, by: int) -> bool:
        """Takes the ``by`` extents behind a run; False, and nothing is changed, where not all are free."""

    def room_behind(self, segment: int, start: int, length: int) -> int:
        """How many extents behind a run are free without a gap."""

    def free(self, segment: int, start: int, length: int) -> int:
        """Takes one owner from a run; returns how many of its extents have no other and are free now."""

    def free_batch(self, runs: bytes) -> int:
        """The same for several runs, in their order.

        Raises ``RunConflictError``: ``positions[0]`` is the first that was refused; those before it are freed.
        """

    def quarantine(self, segment: int, start: int, length: int) -> bytes:
        """Like ``free``, but extents without owners wait for ``reclaim``; returns the runs that do."""

    def reclaim(self, segment: int, start: int, length: int) -> None:
        """Makes quarantined extents free, once their old data is gone."""

    def share(self, segment: int, start: int, length: int) -> None:
        """Adds an owner to every extent of a run."""

    def free_runs(self) -> bytes:
        """The free runs."""

    def quarantined_runs(self) -> bytes:
        """The quarantined runs."""

    def shared_runs(self) -> bytes:
        """The shared runs that have two owners or more, and how many."""

    def statistics(self) -> _Statistics:
        """Figures about the pool as it is now."""

    def check(self) -> str | None:
        """The first contradiction in the pool's own account, for people; None where there is none."""

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
