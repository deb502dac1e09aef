"""What others have of the root's filesystem, as far as counts by project or subvolume can say it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from backends.nfs.others import others_bytes
from backends.nfs.records import Record
from backends.nfs.sizing import Unsized
from csi_core.model import ContentSource, SourceKind

GIB = 1 << 30
VOLUME, SNAPSHOT, CLONE, OTHER = "v-1", "s-1", "v-2", "v-3"
IDS = {VOLUME: 1, SNAPSHOT: 2, CLONE: 3, OTHER: 4}


class Counted(Unsized):
    """So many GiB by id; 0 and what is above 4 are not ours."""

    counts = True

    def __init__(self, gib: Mapping[int, int], *gone: int) -> None:
        self._gib = gib
        self._ours = frozenset(tree_id for tree_id in gib if 1 <= tree_id <= 4)
        self._gone = gone

    def usages(self) -> dict[int, int]:
        counted = {tree_id: gib * GIB for tree_id, gib in self._gib.items()}
        self._ours -= set(self._gone)
        return counted

    def ours(self) -> frozenset[int]:
        return self._ours


def record(key: str, *, of: str = "", source: ContentSource | None = None) -> Record:
    return Record(key, key, 0, 0, IDS[key], 0, volume_key=of, source=source)


ALONE = [record(VOLUME), record(OTHER)]
FAMILY = [
    record(VOLUME),
    record(SNAPSHOT, of=VOLUME),
    record(CLONE, source=ContentSource(SourceKind.SNAPSHOT, SNAPSHOT)),
    record(OTHER),
]


@pytest.mark.parametrize(
    ("records", "counted_gib", "used_gib", "others_gib"),
    [
        pytest.param([], {}, 0, 0, id="nothing"),
        pytest.param(ALONE, {0: 3, 1: 10, 4: 5}, 20, 5, id="the filesystem's own is others', too"),
        pytest.param(ALONE, {0: 9, 1: 10, 4: 5}, 17, 2, id="others that share among themselves"),
        pytest.param(FAMILY, {0: 3, 1: 10, 2: 10, 3: 10, 4: 5}, 19, 3, id="copies of ours that share"),
        pytest.param(FAMILY, {0: 9, 1: 10, 2: 10, 3: 10, 4: 5}, 17, 2, id="both share"),
        pytest.param(FAMILY, {0: 3, 1: 10, 2: 10, 3: 10, 4: 5}, 39, 4, id="copies that share nothing"),
        pytest.param(ALONE, {0: 1, 1: 10, 4: 5}, 14, 0, id="counts ahead of what is used"),
    ],
)
def test_what_others_have(records: list[Record], counted_gib: dict[int, int], used_gib: int, others_gib: int) -> None:
    space = (100 * GIB, (100 - used_gib) * GIB)
    assert others_bytes(Counted(counted_gib), lambda: records, lambda: space) == others_gib * GIB


def test_what_is_removed_while_it_is_counted_is_nobody_elses() -> None:
    """The use read before the volume went would say that others have it, and so would its count without an owner."""
    readings = iter([(100 * GIB, 80 * GIB), (100 * GIB, 90 * GIB)])
    counted = Counted({0: 0, 1: 10, 4: 10}, 4)
    assert others_bytes(counted, lambda: [record(VOLUME)], lambda: next(readings)) == 0


def test_counts_are_settled_before_anything_is_read() -> None:
    """On btrfs what was written a moment ago is in neither number, or in one of them."""
    done: list[str] = []

    class Settled(Counted):
        def settle(self) -> None:
            done.append("settled")

    def space() -> tuple[int, int]:
        done.append("read")
        return 100 * GIB, 90 * GIB

    others_bytes(Settled({0: 0, 1: 10}), lambda: [record(VOLUME)], space)
    assert done[0] == "settled"
