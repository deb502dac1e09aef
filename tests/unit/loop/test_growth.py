"""How often an elastic volume is looked at, and how far ahead of its writer it is kept."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from backends.loop.extents import growth
from backends.loop.extents.growth import Grower, Pacing
from csi_core.errors import FailedPrecondition, NoSpace

MIB = 1 << 20
GIB = 1 << 30
CLAIMED_BYTES = 8 * GIB


@pytest.mark.parametrize("free_bytes", [256 * MIB, 512 * MIB, GIB, 3 * GIB, 7 * GIB])
def test_the_fastest_writer_cannot_use_up_what_is_free_between_two_looks_and_a_growth(free_bytes: int) -> None:
    pacing = Pacing()
    pacing.saw(free_bytes, 1.0)
    assert growth._PEAK_BYTES_PER_S * (pacing.wait_s + growth._GROWTH_S) <= free_bytes


def test_a_volume_with_much_room_is_looked_at_once_a_second() -> None:
    pacing = Pacing()
    pacing.saw(100 * GIB, 1.0)
    assert pacing.wait_s == 1.0


def test_slack_follows_the_writer_at_once_and_is_given_up_slowly() -> None:
    pacing = Pacing()
    pacing.saw(10 * GIB, 1.0)
    idle = pacing.slack_bytes
    pacing.saw(7 * GIB, 2.0)
    busy = pacing.slack_bytes
    assert busy == int(growth._AHEAD_S * 3 * GIB) > idle
    pacing.saw(7 * GIB, 3.0)
    assert idle < pacing.slack_bytes < busy


def test_where_growing_takes_long_it_begins_earlier() -> None:
    pacing = Pacing(growth_s=1.0)
    pacing.saw(10 * GIB, 1.0)
    pacing.saw(9 * GIB, 2.0)
    assert pacing.slack_bytes == int((growth._AHEAD_S + 1.0) * GIB)


def test_deleting_files_is_no_writing() -> None:
    pacing = Pacing()
    pacing.saw(GIB, 1.0)
    pacing.saw(5 * GIB, 2.0)
    assert pacing.written_per_s == 0


class Simulated:
    """A volume, its pool and its filesystem in one; ``room_bytes`` is what the pool has left."""

    def __init__(self, room_bytes: int) -> None:
        self.present = 512 * MIB
        self.filesystem = 512 * MIB
        self.used = 0
        self.room_bytes = room_bytes
        self.refuses_growth = False

    def present_bytes(self, key: str) -> int:
        return self.present

    def claimed_bytes(self, key: str) -> int:
        return CLAIMED_BYTES

    def lengthen(self, key: str, present_bytes: int) -> int:
        more = min(present_bytes, CLAIMED_BYTES) - self.present
        if more > self.room_bytes:
            raise NoSpace("the pool is full")
        self.room_bytes -= more
        self.present += more
        return self.present

    def filesystem_on(self, device: Path) -> Simulated:
        return self

    def free_bytes(self) -> int:
        return self.filesystem - self.used

    def grow(self) -> None:
        if self.refuses_growth:
            raise FailedPrecondition("it may not grow")
        self.filesystem = self.present


def watched(volume: Simulated) -> Grower:
    grower = Grower("pool", volume, volume)  # type: ignore[arg-type]
    grower.watch("v-1", Path("/dev/loop99"))
    return grower


def eventually(condition: object) -> None:
    give_up = time.monotonic() + 5
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < give_up
        time.sleep(0.005)


def test_all_of_the_pool_is_used_before_it_is_full_and_the_volume_goes_on_when_there_is_room() -> None:
    volume = Simulated(room_bytes=700 * MIB)
    grower = watched(volume)
    try:
        volume.used = 500 * MIB
        eventually(lambda: volume.filesystem > 512 * MIB)
        volume.used = volume.filesystem - 20 * MIB
        eventually(lambda: isinstance(grower.problem("v-1"), NoSpace))
        assert volume.room_bytes < growth._SMALLEST_STEP_BYTES
        volume.room_bytes = 8 * GIB
        eventually(lambda: volume.free_bytes() >= growth._LEAST_SLACK_BYTES and grower.problem("v-1") is None)
    finally:
        grower.stop()
    assert threading.active_count() == 1 or not [t for t in threading.enumerate() if t.name.startswith("loop-grow")]


def test_a_volume_that_was_detached_by_hand_is_watched_on_its_new_device() -> None:
    volume = Simulated(room_bytes=CLAIMED_BYTES)
    seen: list[Path] = []

    def filesystem_on(device: Path) -> Simulated:
        seen.append(device)
        return volume

    volume.filesystem_on = filesystem_on  # type: ignore[method-assign]
    grower = watched(volume)
    eventually(lambda: seen)
    grower.watch("v-1", Path("/dev/loop98"))
    eventually(lambda: seen[-1] == Path("/dev/loop98"))
    grower.stop()
    assert seen == sorted(seen, reverse=True), "nobody looks at the old one, which may be another's by now"


def test_a_filesystem_that_may_not_grow_is_a_problem_of_its_volume() -> None:
    volume = Simulated(room_bytes=8 * GIB)
    volume.refuses_growth = True
    grower = watched(volume)
    try:
        eventually(lambda: isinstance(grower.problem("v-1"), FailedPrecondition))
    finally:
        grower.stop()


def test_a_device_that_was_lengthened_before_a_kill_is_filled_at_once() -> None:
    volume = Simulated(room_bytes=0)
    volume.present = GIB
    grower = watched(volume)
    try:
        eventually(lambda: volume.filesystem == GIB)
    finally:
        grower.stop()


def test_a_volume_that_is_complete_is_no_problem_however_full() -> None:
    volume = Simulated(room_bytes=0)
    volume.present = volume.filesystem = CLAIMED_BYTES
    volume.used = CLAIMED_BYTES
    grower = watched(volume)
    try:
        time.sleep(0.1)
        assert grower.problem("v-1") is None
    finally:
        grower.stop()
