"""Work that outlives its call."""

from __future__ import annotations

import threading
import time

import pytest

from csi_core.background import BackgroundWork, Cancelled, Task
from csi_core.deadline import call_deadline
from csi_core.errors import NoSpace, TimedOut


@pytest.fixture
def background():
    background = BackgroundWork(limit=2, patience_s=5)
    yield background
    background.stop()


def test_short_work_is_done_when_the_call_returns(background):
    done = []
    background.finish("copy a", lambda task: done.append(1))
    assert done == [1]
    assert not background.running("copy a")


def test_what_the_work_raised_reaches_the_caller_and_it_can_be_begun_anew(background):
    def fail(task: Task) -> None:
        raise NoSpace("full")

    with pytest.raises(NoSpace, match="full"):
        background.finish("copy a", fail)
    background.finish("copy a", lambda task: None)


def test_past_the_deadline_the_work_goes_on_and_the_next_call_joins_it(background):
    go_on, begun = threading.Event(), []

    def work(task: Task) -> None:
        begun.append(1)
        task.progress(3 << 20, 10 << 20)
        go_on.wait()

    began_s = time.monotonic()
    with call_deadline(0.2), pytest.raises(TimedOut, match=r"copy a is still under way \(3 of 10 MiB\)"):
        background.finish("copy a", work)
    assert time.monotonic() - began_s < 0.2, "the answer is too late for the client"
    assert background.running("copy a")
    threading.Timer(0.1, go_on.set).start()
    background.finish("copy a", work)
    assert begun == [1]


def test_no_call_waits_longer_than_the_patience():
    background = BackgroundWork(patience_s=0.1)
    with pytest.raises(TimedOut):
        background.finish("copy a", lambda task: task.sleep(30))
    background.stop()
    assert not background.running("copy a")


def test_cancelled_work_has_stopped_when_cancel_returns(background):
    stopped = []

    def work(task: Task) -> None:
        try:
            while True:
                task.sleep(0.01)
        finally:
            time.sleep(0.05)
            stopped.append(1)

    background.begin("copy a", work)
    waiter_saw = []

    def wait() -> None:
        try:
            background.finish("copy a", work)
        except Cancelled as error:
            waiter_saw.append(str(error))

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.05)
    background.cancel("copy a")
    assert stopped == [1]
    waiter.join()
    assert waiter_saw == ["copy a was stopped; repeat the call if it is still wanted"]
    background.cancel("copy a")


def test_no_more_than_the_limit_runs_at_once(background):
    mutex, now, most = threading.Lock(), [0], [0]

    def work(task: Task) -> None:
        with mutex:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with mutex:
            now[0] -= 1

    for number in range(6):
        background.begin(("copy", number), work)
    for number in range(6):
        background.finish(("copy", number), work)
    assert most == [2]


def test_what_waits_for_its_turn_can_be_cancelled(background):
    for number in range(2):
        background.begin(number, lambda task: task.sleep(30))
    background.begin("third", lambda task: pytest.fail("it was cancelled before its turn"))
    background.cancel("third")
    assert not background.running("third")


def test_after_stop_nothing_is_begun(background):
    background.stop()
    with pytest.raises(Cancelled, match="the server is stopping"):
        background.finish("copy a", lambda task: None)
