"""Where in a packed pool something is moved to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.loop.database import PoolDatabase
from backends.loop.extents.space import Space
from backends.loop.records import RunRecord
from csi_core.errors import NoSpace

MIB = 1 << 20


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Space]:
    """32 extents in eight runs of four, all of them taken."""
    database = PoolDatabase(tmp_path / "pool.db")
    space = Space("p", database, MIB, [32])
    for _ in range(8):
        assert space.pool.allocate(4)
    yield space
    database.close()


def moved_to(space: Space, *present: RunRecord) -> RunRecord:
    with space.moved("v-1", present) as taken:
        (run,) = taken.runs
    return run


@pytest.mark.parametrize("freed", [(0, 28, 20), (20, 28, 0)])
def test_a_place_before_it_is_found_whichever_was_freed_last(space: Space, freed: tuple[int, ...]) -> None:
    for start in freed:
        space.pool.free(0, start, 4)
    assert moved_to(space, RunRecord(0, 12, 4)) == RunRecord(0, 0, 4)
    assert space.pool.free_extents == 8, "what was looked at is free again"


def test_where_there_is_none_before_it_all_stays_as_it_is(space: Space) -> None:
    space.pool.free(0, 28, 4)
    with pytest.raises(NoSpace, match="no better place"):
        moved_to(space, RunRecord(0, 12, 4))
    assert space.pool.free_extents == 4


def test_what_lies_in_pieces_goes_wherever_there_is_one_place(space: Space) -> None:
    space.pool.free(0, 24, 8)
    assert moved_to(space, RunRecord(0, 0, 4), RunRecord(0, 12, 4)) == RunRecord(0, 24, 8)
