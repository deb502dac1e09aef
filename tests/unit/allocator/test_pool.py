"""The binding of the extent allocator: packing, errors, threads. The allocator itself is tested in Rust."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import threading

import pytest

from csi_core import _allocator
from csi_core._allocator import HELD_OWNED, HELD_QUARANTINED, HELD_SHARED, ExtentPool, RunConflictError

Run = tuple[int, int, int]


def runs(buffer: bytes) -> list[Run]:
    return list(struct.iter_unpack("=3Q", buffer))


def packed(*entries: tuple[int, ...]) -> bytes:
    return b"".join(struct.pack(f"={len(entry)}Q", *entry) for entry in entries)


def test_allocates_extends_and_frees() -> None:
    pool = ExtentPool([100])
    assert (pool.extents, pool.free_extents, pool.extent_bytes) == (100, 100, 1 << 20)
    assert pool.allocate(10) == (0, 0, 10)
    assert pool.room_behind(0, 0, 10) == 90
    assert pool.extend(0, 0, 10, 5)
    assert not pool.extend(0, 0, 15, 86)
    assert pool.allocate(8, alignment=16) == (0, 16, 8)
    assert pool.free(0, 0, 15) == 15
    assert runs(pool.free_runs()) == [(0, 0, 16), (0, 24, 76)]
    assert repr(pool) == "<ExtentPool: 92 of 100 extents of 1048576 bytes free>"


def test_full_is_none() -> None:
    pool = ExtentPool([10])
    assert pool.allocate(11) is None
    assert pool.allocate_batch(packed((6,), (5,))) is None
    assert pool.allocate_scattered(11, 8) is None
    assert pool.free_extents == 10


def test_a_batch_comes_in_the_order_asked() -> None:
    pool = ExtentPool([100, 50])
    batch = pool.allocate_batch(packed((5,), (60,), (50,)))
    assert batch is not None
    assert [length for _, _, length in runs(batch)] == [5, 60, 50]
    assert pool.free_batch(batch) == 115
    assert pool.longest_free_run == 100


def test_scatters_over_few_runs() -> None:
    pool = ExtentPool([60, 40, 10])
    assert pool.allocate_scattered(105, 2) is None
    scattered = pool.allocate_scattered(100, 2)
    assert scattered is not None
    assert sorted(runs(scattered)) == [(0, 0, 60), (1, 0, 40)]


def test_quarantined_extents_wait_until_reclaimed() -> None:
    pool = ExtentPool([10])
    assert pool.allocate(10) == (0, 0, 10)
    assert runs(pool.quarantine(0, 2, 4)) == [(0, 2, 4)]
    assert pool.allocate(1) is None
    assert runs(pool.quarantined_runs()) == [(0, 2, 4)]
    pool.reclaim(0, 2, 4)
    assert pool.allocate(4) == (0, 2, 4)


def test_shared_extents_are_free_when_the_last_owner_is_gone() -> None:
    pool = ExtentPool([10])
    assert pool.allocate(10) == (0, 0, 10)
    pool.share(0, 4, 4)
    assert list(struct.iter_unpack("=4Q", pool.shared_runs())) == [(0, 4, 4, 2)]
    assert pool.free(0, 0, 10) == 6
    assert pool.free(0, 4, 4) == 4
    assert pool.free_extents == 10


def test_segments_are_added_and_grow() -> None:
    pool = ExtentPool([])
    assert pool.add_segment(10) == 0
    assert pool.add_segment(20) == 1
    pool.grow_segment(0, 15)
    pool.grow_segment(0, 15)
    assert (pool.segment_extents(0), pool.extents, pool.free_extents) == (15, 35, 35)
    with pytest.raises(ValueError, match="segments never shrink"):
        pool.grow_segment(0, 14)
    with pytest.raises(ValueError, match="no segment 2"):
        pool.segment_extents(2)


def test_rebuilds_from_held_runs() -> None:
    held = packed(
        (0, 0, 10, HELD_OWNED), (0, 20, 10, HELD_SHARED), (0, 25, 10, HELD_SHARED), (1, 0, 5, HELD_QUARANTINED)
    )
    pool = ExtentPool.rebuild([100, 5], held, extent_bytes=1 << 22)
    assert runs(pool.free_runs()) == [(0, 10, 10), (0, 35, 65)]
    assert runs(pool.quarantined_runs()) == [(1, 0, 5)]
    assert list(struct.iter_unpack("=4Q", pool.shared_runs())) == [(0, 25, 5, 2)]
    assert pool.extent_bytes == 1 << 22


def test_overlaps_are_named() -> None:
    held = packed((0, 50, 10, HELD_OWNED), (0, 0, 5, HELD_OWNED), (0, 55, 10, HELD_OWNED))
    with pytest.raises(
        RunConflictError, match="entries 0 and 2 of the list overlap: extents 50..60 of segment 0"
    ) as error:
        ExtentPool.rebuild([100], held)
    assert error.value.positions == (0, 2)
    assert error.value.runs == ((0, 50, 10), (0, 55, 10))


def test_what_is_not_in_use_cannot_be_freed() -> None:
    pool = ExtentPool([10])
    with pytest.raises(RunConflictError, match="should be in use, but extents 0..10 of segment 0 are free") as error:
        pool.free(0, 3, 2)
    assert (error.value.runs, error.value.positions) == (((0, 3, 2), (0, 0, 10)), ())
    assert pool.allocate(10) == (0, 0, 10)
    with pytest.raises(RunConflictError) as error:
        pool.free_batch(packed((0, 0, 2), (0, 1, 2)))
    assert error.value.positions == (1,)
    assert pool.free_extents == 2


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ((0, 9, 2), "entry 1 of the list: extents 9..11 of segment 0 reach beyond its 10 extents"),
        ((0, 9, 0), "entry 1 of the list: extents 9..9 of segment 0: a run of no extents"),
        ((3, 9, 1), "entry 1 of the list: extents 9..10 of segment 3: the pool has no segment 3"),
    ],
)
def test_a_run_that_no_pool_can_have_is_named_by_its_position(run: Run, said: str) -> None:
    with pytest.raises(RunConflictError, match=said) as error:
        ExtentPool.rebuild([10], packed((0, 0, 1, HELD_OWNED), (*run, HELD_OWNED)))
    assert (error.value.runs, error.value.positions) == ((run,), (1,))
    pool = ExtentPool([10])
    assert pool.allocate(1) == (0, 0, 1)
    with pytest.raises(RunConflictError, match=said) as error:
        pool.free_batch(packed((0, 0, 1), run))
    assert (error.value.runs, error.value.positions) == ((run,), (1,))


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (b"1234567", "7 bytes are not a whole number"),
        (packed((0, 0, 1, 3)), "3 is not HELD_OWNED"),
        (packed((1 << 32, 0, 1, 0)), "not the number of a segment"),
        (packed((0, 9, 2, 0)), "reach beyond its 10 extents"),
        (packed((0, 9, 0, 0)), "no extents"),
    ],
)
def test_lists_that_make_no_sense_are_refused(held: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ExtentPool.rebuild([10], held)


def test_requests_that_make_no_sense_are_refused() -> None:
    pool = ExtentPool([10])
    with pytest.raises(ValueError, match="no extents"):
        pool.allocate(0)
    with pytest.raises(ValueError, match="alignment of 3"):
        pool.allocate(1, alignment=3)
    with pytest.raises(ValueError, match="power of two from 64 KiB to 64 MiB"):
        ExtentPool([], extent_bytes=1000)
    with pytest.raises(OverflowError):
        pool.allocate(-1)


def test_statistics_tell_the_pools_shape() -> None:
    pool = ExtentPool([100])
    assert pool.allocate(100) is not None
    for start in (0, 10, 20):
        pool.free(0, start, 5)
    figures = pool.statistics()
    assert figures["free_runs"] == 3
    assert figures["free_extents"] == 15
    assert figures["longest_free_run"] == pool.longest_free_run == 5
    assert figures["fragmentation"] == pytest.approx(2 / 14)
    assert figures["free_run_histogram"] == [0, 0, 3]
    assert figures["memory_bytes"] > 0


def test_eight_threads_share_a_pool() -> None:
    """Each extent has one owner at a time, whatever mixture of single calls and batches runs at once."""
    pool = ExtentPool([6000, 2000])
    owners = bytearray(8000)
    failures: list[BaseException] = []
    begin = threading.Barrier(8)

    def own(run: Run, mark: int, expected: int) -> None:
        segment, start, length = run
        first = start + 6000 * segment
        assert owners[first : first + length].count(expected) == length, f"{run} has two owners"
        owners[first : first + length] = bytes([mark]) * length

    def work(number: int) -> None:
        draw = random.Random(number)
        mine: list[Run] = []
        begin.wait()
        for _ in range(1500):
            action = draw.random()
            taken: list[Run] = []
            if action < 0.4:
                run = pool.allocate(draw.randint(1, 20))
                taken = [run] if run else []
            elif action < 0.5:
                batch = pool.allocate_batch(packed(*((draw.randint(1, 9),) for _ in range(50))))
                taken = runs(batch) if batch else []
            elif mine:
                draw.shuffle(mine)
                released, mine = mine[: len(mine) // 4 + 1], mine[len(mine) // 4 + 1 :]
                for run in released:
                    own(run, 0, number)
                pool.free_batch(packed(*released))
            for run in taken:
                own(run, number, 0)
            mine += taken
        for run in mine:
            own(run, 0, number)
        pool.free_batch(packed(*mine))

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert pool.check() is None
    assert runs(pool.free_runs()) == [(0, 0, 6000), (1, 0, 2000)]


USED_IN_A_COLLECTION = """
import gc
from csi_core._allocator import ExtentPool, RunConflictError

pool = ExtentPool([10])
gc.callbacks.append(lambda phase, info: pool.free_extents)
gc.set_threshold(1)
for _ in range(100):
    for refused in (pool.free, pool.reclaim, pool.quarantine, pool.share):
        try:
            refused(0, 0, 1)
        except RunConflictError:
            pass
    try:
        pool.free_batch(bytes(16) + (1).to_bytes(8, "little"))
    except RunConflictError:
        pass
"""


def test_an_error_may_start_a_garbage_collection_that_uses_the_pool() -> None:
    """In a process of its own: with the pool's lock held while the exception is made it would hang for good."""
    subprocess.run([sys.executable, "-P", "-c", USED_IN_A_COLLECTION], check=True, timeout=120)


def test_numbers_that_no_pool_can_have_are_refused() -> None:
    pool = ExtentPool([10])
    for number in (-1, 1 << 64, -(1 << 70)):
        with pytest.raises(OverflowError):
            pool.allocate(number)
        with pytest.raises(OverflowError):
            pool.free(0, number, 1)
    with pytest.raises(OverflowError):
        pool.free(1 << 32, 0, 1)
    most = (1 << 64) - 1
    assert (pool.allocate(most), pool.allocate_scattered(most, most)) == (None, None)
    assert pool.allocate_batch(packed((most,), (most,))) is None
    assert pool.allocate(1, room=most) is not None
    with pytest.raises(RunConflictError, match="reach beyond its 10 extents"):
        pool.free(0, most, most)


def test_default_extent_is_between_the_limits() -> None:
    assert _allocator.MIN_EXTENT_BYTES < _allocator.DEFAULT_EXTENT_BYTES < _allocator.MAX_EXTENT_BYTES
    assert ExtentPool([]).extent_bytes == _allocator.DEFAULT_EXTENT_BYTES
