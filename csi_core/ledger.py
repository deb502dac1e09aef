"""One accounting model for the space of a pool, whatever it is made of.

Every volume and snapshot has a *charge*: its size where space is set aside for it (thick), its size divided by the
over-commit ratio where it grows with its data (thin). Charges are *promised* once the creation is durable and
*reserved* while it is under way, and the two together never exceed the capacity. Since over-commit is a bet, a second
guard looks at what is physically used: past the stop watermark nothing more is admitted, whatever was promised.

The ledger is memory only. At start a backend loads it with the sum of the charges that its records hold.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Literal

from csi_core.errors import ConfigError, NoSpace

__all__ = ["Ledger", "LedgerState", "Reservation"]

Level = Literal["ok", "warn", "stop"]


@dataclass(frozen=True, slots=True)
class LedgerState:
    """A ledger at one moment; all sizes in bytes.

    ``used_bytes`` and ``free_bytes`` are the physical ones, None where the pool has no such reading. ``level`` says
    whether the physical use has passed a watermark.
    """

    capacity_bytes: int
    promised_bytes: int
    reserved_bytes: int
    used_bytes: int | None
    free_bytes: int | None
    overcommit_ratio: float
    level: Level


class Reservation:
    """Space held for a creation under way; leaving the context without :meth:`commit` gives it back."""

    __slots__ = ("_ledger", "_open", "charge_bytes")

    def __init__(self, ledger: Ledger, charge_bytes: int) -> None:
        self._ledger = ledger
        self._open = True
        self.charge_bytes = charge_bytes

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            self._close(promise=False)

    def commit(self) -> None:
        """Turn it into a promise; call this once the creation is durable."""
        if not self._open:
            raise ValueError("this reservation was committed or given back already")
        self._close(promise=True)

    def _close(self, promise: bool) -> None:
        self._open = False
        self._ledger._settle(self.charge_bytes, promise)


class Ledger:
    """The books of one pool. Every call is O(1) and may come from any thread.

    Args:
        capacity_bytes: what may be promised in all.
        overcommit_ratio: bytes of thin volumes for each byte of the pool; 1 promises no more than there is.
        warn_at, stop_at: watermarks of the physical use, as shares of the physical total.
        physical: answers (total, free) in bytes, from statvfs say.
        physical_max_age_s: how long such an answer is taken for the present state; 0 where asking costs nothing.

    Raises:
        ConfigError: the ratio or a watermark makes no sense.
    """

    def __init__(
        self,
        capacity_bytes: int,
        overcommit_ratio: float = 1.0,
        warn_at: float = 0.85,
        stop_at: float = 0.95,
        physical: Callable[[], tuple[int, int]] | None = None,
        physical_max_age_s: float = 1.0,
    ) -> None:
        if capacity_bytes < 0:
            raise ConfigError(f"a pool cannot have a capacity of {capacity_bytes} bytes")
        if not 1 <= overcommit_ratio <= 1000:
            raise ConfigError(f"an over-commit ratio of {overcommit_ratio} makes no sense; it lies between 1 and 1000")
        if not 0 < warn_at <= stop_at <= 1:
            raise ConfigError(f"watermarks are shares, 0 < warn <= stop <= 1, not warn {warn_at} and stop {stop_at}")
        self._capacity = capacity_bytes
        # As a fraction, so that charges are exact to the byte at any size.
        self._ratio = Fraction(overcommit_ratio).limit_denominator(10_000)
        self._warn_at = warn_at
        self._stop_at = stop_at
        self._physical = physical
        self._physical_max_age_s = physical_max_age_s
        self._reading: tuple[float, tuple[int, int]] | None = None
        self._mutex = threading.Lock()
        self._others: int | None = None
        self._promised = 0
        self._reserved = 0

    def charge(self, thin: bool, size_bytes: int) -> int:
        """What a volume of ``size_bytes`` costs, in bytes of the capacity."""
        if not thin:
            return size_bytes
        return -(-size_bytes * self._ratio.denominator // self._ratio.numerator)

    def load(self, promised_bytes: int) -> None:
        """Set what is promised already; at start, before any reservation.

        It may exceed the capacity (a pool made smaller): nothing is admitted then until enough is deleted.
        """
        if promised_bytes < 0:
            raise ValueError(f"promised bytes cannot be negative: {promised_bytes}")
        with self._mutex:
            self._promised = promised_bytes

    def resize(self, capacity_bytes: int) -> None:
        """Take note that the pool has become larger."""
        with self._mutex:
            self._capacity = max(self._capacity, capacity_bytes)

    def note_others(self, others_bytes: int) -> None:
        """Take note of what is used physically and by nothing that is charged here: nobody is promised that."""
        with self._mutex:
            self._others = others_bytes

    def reserve(self, charge_bytes: int) -> Reservation:
        """Hold space for a creation that begins now.

        Args:
            charge_bytes: from :meth:`charge`; for an expansion, the difference of the two charges.

        Raises:
            NoSpace: it does not fit, or the pool is physically too full; nothing is held.
        """
        if charge_bytes < 0:
            raise ValueError(f"a charge cannot be negative: {charge_bytes}")
        if charge_bytes == 0:
            return Reservation(self, 0)
        reading = self._read()
        with self._mutex:
            if reading is not None:
                self._admit_physically(charge_bytes, *reading)
            capacity = self._promisable(reading)
            left = capacity - self._promised - self._reserved
            if charge_bytes > left:
                raise NoSpace(
                    f"no room: {_gib(charge_bytes)} of the pool are needed and {_gib(max(0, left))} are left "
                    f"({_gib(self._promised)} promised and {_gib(self._reserved)} being created, of "
                    f"{_gib(capacity)}{self._why(capacity, reading)}); delete volumes, enlarge the pool or raise its "
                    f"over-commit ratio (now {float(self._ratio):g})"
                )
            self._reserved += charge_bytes
        return Reservation(self, charge_bytes)

    def release(self, charge_bytes: int) -> None:
        """Give back the charge of something deleted; call this once the deletion is durable.

        Raises:
            ValueError: more than was promised; the books are left as they are.
        """
        with self._mutex:
            if not 0 <= charge_bytes <= self._promised:
                raise ValueError(f"cannot release {charge_bytes} bytes of {self._promised} promised ones")
            self._promised -= charge_bytes

    def available_bytes(self, thin: bool) -> int:
        """The size in bytes of the largest volume that :meth:`reserve` would admit now."""
        reading = self._read()
        with self._mutex:
            left = self._promisable(reading) - self._promised - self._reserved
            if reading is not None:
                total, free = reading
                left = 0 if self._level(total, free) == "stop" else min(left, free - self._reserved)
        left = max(0, left)
        return left * self._ratio.numerator // self._ratio.denominator if thin else left

    def snapshot(self) -> LedgerState:
        """The books as they stand, for metrics and health."""
        reading = self._read()
        with self._mutex:
            return LedgerState(
                capacity_bytes=self._capacity,
                promised_bytes=self._promised,
                reserved_bytes=self._reserved,
                used_bytes=None if reading is None else reading[0] - reading[1],
                free_bytes=None if reading is None else reading[1],
                overcommit_ratio=float(self._ratio),
                level="ok" if reading is None else self._level(*reading),
            )

    def _settle(self, charge_bytes: int, promise: bool) -> None:
        with self._mutex:
            self._reserved -= charge_bytes
            if promise:
                self._promised += charge_bytes

    def _read(self) -> tuple[int, int] | None:
        # Outside the mutex: a statvfs that hangs must not hold up what asks nothing of the disk.
        if self._physical is None:
            return None
        now = time.monotonic()
        if self._reading is None or now - self._reading[0] > self._physical_max_age_s:
            self._reading = (now, self._physical())
        return self._reading[1]

    def _promisable(self, reading: tuple[int, int] | None) -> int:
        # What is free does not say it: a part of that has been promised, and is not written yet.
        if reading is None or self._others is None:
            return self._capacity
        return max(0, min(self._capacity, reading[0] - self._others))

    def _why(self, capacity: int, reading: tuple[int, int] | None) -> str:
        if reading is None or self._others is None or capacity == self._capacity:
            return ""
        return f": others have {_gib(self._others)} of the filesystem's {_gib(reading[0])}"

    def _level(self, total: int, free: int) -> Level:
        used = (total - free) / total if total else 1.0
        return "stop" if used >= self._stop_at else "warn" if used >= self._warn_at else "ok"

    def _admit_physically(self, charge_bytes: int, total: int, free: int) -> None:
        if self._level(total, free) == "stop":
            raise NoSpace(
                f"the pool is too full: {_gib(total - free)} of {_gib(total)} are used, and nothing is admitted from "
                f"{self._stop_at:.0%} on; free space or enlarge the pool"
            )
        if self._reserved + charge_bytes > free:
            raise NoSpace(
                f"no room: {_gib(charge_bytes)} are needed and only {_gib(max(0, free - self._reserved))} of the "
                f"pool's {_gib(total)} are free; free space or enlarge the pool"
            )


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 30):.2f} GiB"
