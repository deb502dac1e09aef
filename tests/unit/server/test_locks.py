"""Keyed try-locks: all or none, nobody waits, and the one refused learns whose they are."""

from __future__ import annotations

import random
import re
import threading

import pytest

from csi_core.errors import Busy
from csi_core.locks import Key, KeyedLocks

A, B, C = (Key("volume", f"loop/{name}") for name in "abc")


def test_one_at_a_time() -> None:
    locks = KeyedLocks()
    with locks.hold("First", A):
        with pytest.raises(Busy, match=r"volume loop/a is busy: First has held it for 0\.0 s"):
            locks.hold("Second", A)
        locks.hold("Second", B).__exit__(None, None, None)
    with locks.hold("Second", A):
        pass
    assert locks.held() == ()


def test_a_refused_call_holds_nothing() -> None:
    locks = KeyedLocks()
    with locks.hold("First", B):
        with pytest.raises(Busy):
            locks.hold("Second", A, B)
        with pytest.raises(Busy):
            locks.hold("Second", A, shared=(C, B))
        with locks.hold("Third", A, C):
            pass


def test_released_after_an_error() -> None:
    locks = KeyedLocks()
    with pytest.raises(ValueError, match="oops"), locks.hold("First", A, shared=(B,)):
        raise ValueError("oops")
    assert locks.held() == ()


def test_sharing() -> None:
    locks = KeyedLocks()
    with locks.hold("Clone", A, shared=(C,)):
        with locks.hold("Clone", B, shared=(C,)), pytest.raises(Busy, match="Clone has held it"):
            locks.hold("Delete", C)
        with pytest.raises(Busy):
            locks.hold("Delete", C)
    with locks.hold("Delete", C), pytest.raises(Busy):
        locks.hold("Clone", shared=(C,))
    assert locks.held() == ()


def test_who_holds_what() -> None:
    locks = KeyedLocks()
    with locks.hold("First", A, Key("snapshot name", ("loop", "snap-1"))):
        assert [re.sub(r"[\d.]+ s$", "N s", line) for line in locks.held()] == [
            "volume loop/a: First for N s",
            "snapshot name loop/snap-1: First for N s",
        ]


def test_many_threads_in_any_order_never_overlap_and_never_hang() -> None:
    locks, keys = KeyedLocks(), [Key("volume", n) for n in range(5)]
    inside = dict.fromkeys(keys, 0)
    overlaps, done = [], []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(300):
            mine = chance.sample(keys, 3)
            try:
                with locks.hold(f"call {seed}", *mine):
                    for key in mine:
                        inside[key] += 1
                        overlaps.extend([key] * (inside[key] != 1))
                    for key in mine:
                        inside[key] -= 1
            except Busy:
                continue
        done.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(done) == 6
    assert overlaps == []
    assert locks.held() == ()
