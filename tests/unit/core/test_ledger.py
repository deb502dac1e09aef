from __future__ import annotations

import random
import sys
import threading
import time
from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csi_core import ledger as ledger_module
from csi_core.errors import ConfigError, NoSpace
from csi_core.ledger import Ledger

GIB = 1 << 30


def test_thick_is_charged_whole_and_thin_by_the_ratio():
    ledger = Ledger(100 * GIB, 3.0)
    assert ledger.charge(False, 10) == 10
    assert [ledger.charge(True, size) for size in (0, 1, 3, 4, 9)] == [0, 1, 1, 2, 3]


def test_charges_are_exact_at_any_size():
    """As floats, 2**62 / 1.1 is off by hundreds of bytes."""
    size = (1 << 62) + 1
    charge = Ledger(1 << 63, 1.1).charge(True, size)
    assert charge == -(-size * 10 // 11)


def test_a_reservation_becomes_a_promise_or_is_given_back():
    ledger = Ledger(100)
    with ledger.reserve(60) as reservation:
        assert ledger.snapshot().reserved_bytes == 60
        reservation.commit()
        assert (ledger.snapshot().promised_bytes, ledger.snapshot().reserved_bytes) == (60, 0)
    assert ledger.snapshot().promised_bytes == 60
    with pytest.raises(RuntimeError), ledger.reserve(40):
        raise RuntimeError("the creation failed")
    assert (ledger.snapshot().promised_bytes, ledger.snapshot().reserved_bytes) == (60, 0)
    with ledger.reserve(40):
        pass
    assert ledger.available_bytes(False) == 40


def test_a_reservation_is_committed_once():
    ledger = Ledger(100)
    with ledger.reserve(60) as reservation:
        reservation.commit()
        with pytest.raises(ValueError, match="already"):
            reservation.commit()
    with pytest.raises(ValueError, match="already"):
        reservation.commit()
    assert ledger.snapshot().promised_bytes == 60


def test_full():
    ledger = Ledger(10 * GIB, 2.0)
    ledger.load(7 * GIB)
    with ledger.reserve(2 * GIB), pytest.raises(NoSpace) as caught:
        ledger.reserve(GIB + 1)
    assert str(caught.value) == (
        "no room: 1.00 GiB of the pool are needed and 1.00 GiB are left (7.00 GiB promised and 2.00 GiB being created, "
        "of 10.00 GiB); delete volumes, enlarge the pool or raise its over-commit ratio (now 2)"
    )
    assert ledger.snapshot().reserved_bytes == 0


def test_release():
    ledger = Ledger(100)
    ledger.load(30)
    ledger.release(10)
    assert ledger.snapshot().promised_bytes == 20
    for wrong in (21, -1):
        with pytest.raises(ValueError, match="cannot release"):
            ledger.release(wrong)
    assert ledger.snapshot().promised_bytes == 20


def test_what_is_only_reserved_cannot_be_released():
    ledger = Ledger(100)
    with ledger.reserve(50), pytest.raises(ValueError, match="cannot release"):
        ledger.release(1)


def test_a_pool_made_smaller_admits_nothing_until_enough_is_deleted():
    ledger = Ledger(100)
    ledger.load(130)
    assert ledger.available_bytes(False) == 0
    with pytest.raises(NoSpace):
        ledger.reserve(1)
    ledger.reserve(0)  # growing by nothing is always possible
    ledger.release(40)
    assert ledger.available_bytes(False) == 10


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"capacity_bytes": -1}, "capacity of -1"),
        ({"overcommit_ratio": 0.5}, "over-commit ratio of 0.5"),
        ({"overcommit_ratio": float("nan")}, "over-commit ratio of nan"),
        ({"overcommit_ratio": float("inf")}, "over-commit ratio of inf"),
        ({"warn_at": 0.9, "stop_at": 0.8}, "warn 0.9 and stop 0.8"),
        ({"warn_at": 0.0}, "0 < warn"),
        ({"stop_at": 1.1}, "stop <= 1"),
    ],
)
def test_settings_that_make_no_sense(arguments, said):
    with pytest.raises(ConfigError, match=said):
        Ledger(**{"capacity_bytes": 100, **arguments})


def test_negative_charges_are_a_mistake():
    with pytest.raises(ValueError, match="negative"):
        Ledger(100).reserve(-1)
    with pytest.raises(ValueError, match="negative"):
        Ledger(100).load(-1)


class Disk:
    def __init__(self, total, free):
        self.reading = (total, free)
        self.asked = 0

    def __call__(self):
        self.asked += 1
        return self.reading


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(ledger_module, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("free", "level"), [(1000, "ok"), (151, "ok"), (150, "warn"), (51, "warn"), (50, "stop"), (0, "stop")]
)
def test_levels(free, level):
    state = Ledger(1000, physical=Disk(1000, free)).snapshot()
    assert (state.level, state.used_bytes, state.free_bytes) == (level, 1000 - free, free)


def test_past_the_stop_watermark_nothing_is_admitted_whatever_was_promised():
    ledger = Ledger(1000 * GIB, 10.0, physical=Disk(100 * GIB, 5 * GIB))
    assert (ledger.available_bytes(True), ledger.available_bytes(False)) == (0, 0)
    with pytest.raises(NoSpace) as caught:
        ledger.reserve(1)
    assert str(caught.value) == (
        "the pool is too full: 95.00 GiB of 100.00 GiB are used, and nothing is admitted from 95% on; "
        "free space or enlarge the pool"
    )


def test_a_charge_larger_than_the_free_space_is_refused_before_the_disk_does():
    ledger = Ledger(1000, physical=Disk(1000, 300))
    assert ledger.available_bytes(False) == 300
    with ledger.reserve(200):
        assert ledger.available_bytes(False) == 100
        with pytest.raises(NoSpace, match="free"):
            ledger.reserve(101)
        ledger.reserve(100)


def test_what_others_have_is_promised_to_nobody():
    ledger = Ledger(1000 * GIB, physical=Disk(1000 * GIB, 700 * GIB))
    ledger.load(600 * GIB)  # not written yet
    assert ledger.available_bytes(True) == 400 * GIB
    ledger.note_others(300 * GIB)
    assert ledger.available_bytes(True) == 100 * GIB
    with pytest.raises(NoSpace) as caught:
        ledger.reserve(101 * GIB)
    assert str(caught.value) == (
        "no room: 101.00 GiB of the pool are needed and 100.00 GiB are left (600.00 GiB promised and 0.00 GiB being "
        "created, of 700.00 GiB: others have 300.00 GiB of the filesystem's 1000.00 GiB); delete volumes, enlarge the "
        "pool or raise its over-commit ratio (now 1)"
    )
    ledger.note_others(0)
    assert ledger.available_bytes(True) == 400 * GIB


def test_a_capacity_that_leaves_room_for_others_is_all_that_counts():
    ledger = Ledger(500 * GIB, physical=Disk(1000 * GIB, 900 * GIB))
    ledger.note_others(100 * GIB)
    assert ledger.available_bytes(True) == 500 * GIB


def test_without_a_reading_only_promises_count():
    ledger = Ledger(100)
    ledger.load(100)
    state = ledger.snapshot()
    assert (state.level, state.used_bytes, state.free_bytes) == ("ok", None, None)


def test_the_disk_is_asked_at_most_once_a_second(clock):
    disk = Disk(1000, 1000)
    ledger = Ledger(1000, physical=disk)
    for _ in range(50):
        ledger.available_bytes(True)
        ledger.reserve(0)
        ledger.snapshot()
    assert disk.asked == 1
    clock.now += 1.01
    disk.reading = (1000, 10)
    assert ledger.snapshot().level == "stop"
    assert disk.asked == 2


def test_an_empty_disk_reading_is_full():
    assert Ledger(0, physical=Disk(0, 0)).snapshot().level == "stop"


@given(
    capacity=st.integers(0, 1 << 50),
    ratio=st.floats(1, 1000),
    promised=st.integers(0, 1 << 50),
    reserved=st.integers(0, 1 << 50),
    disk=st.none() | st.tuples(st.integers(0, 1 << 50), st.integers(0, 1 << 50)).map(sorted),
    others=st.none() | st.integers(0, 1 << 50),
    thin=st.booleans(),
)
def test_available_is_exactly_what_is_admitted(capacity, ratio, promised, reserved, disk, others, thin):
    physical = None if disk is None else Disk(disk[1], disk[0])
    ledger = Ledger(capacity, ratio, physical=physical)
    ledger.load(promised)
    if others is not None:
        ledger.note_others(others)
    with suppress(NoSpace):
        ledger.reserve(reserved)
    available = ledger.available_bytes(thin)
    assert available >= 0
    with ledger.reserve(ledger.charge(thin, available)):
        pass
    # The next larger volume that costs more is refused.
    larger = next(size for size in range(available + 1, available + 1002) if ledger.charge(thin, size) > 0)
    if ledger.charge(thin, larger) > ledger.charge(thin, available):
        with pytest.raises(NoSpace):
            ledger.reserve(ledger.charge(thin, larger))


@given(ratio=st.floats(1, 1000), sizes=st.lists(st.integers(0, 1 << 45), max_size=20))
def test_thin_volumes_never_exceed_the_ratio_in_sum(ratio, sizes):
    ledger = Ledger(1 << 62, ratio)
    charged = sum(ledger.charge(True, size) for size in sizes)
    assert charged * Fraction(ratio).limit_denominator(10_000) >= sum(sizes)


def yielding(chance):
    """A trace function that lets other threads run in the middle of the ledger's lines.

    The interpreter switches threads at calls and loops only, so without this a ledger that had no lock would pass.
    """

    def trace(frame, event, _argument):
        if frame.f_code.co_filename != ledger_module.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and chance.random() < 0.1:
            time.sleep(0)
        return trace

    return trace


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    capacity=st.integers(1, 2000),
    ratio=st.sampled_from([1.0, 1.5, 7.0]),
    threads=st.integers(2, 4),
)
def test_promised_and_reserved_never_exceed_the_capacity_under_threads(seed, capacity, ratio, threads):
    """Threads create, fail to create and delete at random while another one watches the books."""
    ledger = Ledger(capacity, ratio)
    held: list[list[int]] = [[] for _ in range(threads)]
    wrong: list[object] = []
    done = threading.Event()

    def watch():
        while not done.wait(0.0005):
            state = ledger.snapshot()
            if (
                not 0 <= state.promised_bytes + state.reserved_bytes <= capacity
                or min(state.promised_bytes, state.reserved_bytes) < 0
            ):
                wrong.append(state)

    def work(number):
        chance = random.Random(seed + number)
        sys.settrace(yielding(random.Random(seed - number)))
        try:
            for _ in range(40):
                charge = ledger.charge(chance.random() < 0.5, chance.randrange(0, 400))
                if chance.random() < 0.4 and held[number]:
                    ledger.release(held[number].pop())
                    continue
                try:
                    with ledger.reserve(charge) as reservation:
                        if chance.random() < 0.8:
                            reservation.commit()
                            held[number].append(charge)
                except NoSpace:
                    pass
        except BaseException as error:
            wrong.append(error)
        finally:
            sys.settrace(None)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    watcher = threading.Thread(target=watch)
    for thread in (watcher, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    done.set()
    watcher.join()
    assert wrong == []
    state = ledger.snapshot()
    assert state.reserved_bytes == 0
    assert state.promised_bytes == sum(map(sum, held))
