"""First come, first served."""

from __future__ import annotations

import threading
import time

from backends.lvm.turns import Turns


def test_in_order_and_one_at_a_time():
    turns, order, inside = Turns(), [], []

    def work(number: int) -> None:
        with turns:
            inside.append(number)
            assert inside == [number]
            order.append(number)
            time.sleep(0.001)
            inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    with turns:
        for thread in threads:
            thread.start()
            time.sleep(0.005)
    for thread in threads:
        thread.join(10)
    assert order == list(range(20))
    with turns:
        assert not inside
