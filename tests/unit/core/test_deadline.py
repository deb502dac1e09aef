from __future__ import annotations

import threading

import pytest

from csi_core import deadline
from csi_core.errors import TimedOut


def test_without_a_deadline():
    assert deadline.remaining_s(7.0) == 7.0
    deadline.check()
    with deadline.call_deadline(None):
        assert deadline.remaining_s(7.0) == 7.0


def test_the_nearer_one_counts():
    with deadline.call_deadline(100):
        assert deadline.remaining_s(7.0) == 7.0
        assert 99 < deadline.remaining_s(500) <= 100
        with deadline.call_deadline(10):
            assert 9 < deadline.remaining_s(500) <= 10
        with deadline.call_deadline(1000):
            assert 99 < deadline.remaining_s(500) <= 100
        with deadline.call_deadline(None):
            assert 99 < deadline.remaining_s(500) <= 100
    assert deadline.remaining_s(500) == 500


def test_passed():
    with deadline.call_deadline(0):
        assert deadline.remaining_s(5) == 0
        with pytest.raises(TimedOut, match="deadline of this call has passed"):
            deadline.check()
        with deadline.past_deadline():
            deadline.check()
            assert deadline.remaining_s(5) == 5
        with pytest.raises(TimedOut):
            deadline.check()


def test_it_ends_with_the_call_even_where_that_fails():
    with pytest.raises(KeyError), deadline.call_deadline(0):
        raise KeyError
    deadline.check()


def test_other_threads_have_none():
    seen = []
    with deadline.call_deadline(1):
        thread = threading.Thread(target=lambda: seen.append(deadline.remaining_s(50)))
        thread.start()
        thread.join()
    assert seen == [50]
