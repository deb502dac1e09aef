"""Which size a volume gets."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from csi_core.errors import OutOfRange
from csi_core.model import SizeRange
from csi_core.sizes import choose_size, whole_size

UNITS = {"granularity_bytes": 10, "minimum_bytes": 30, "default_bytes": 100}


@pytest.mark.parametrize(
    ("required", "limit", "source", "chosen"),
    [
        (0, 0, 0, 100),  # nothing said
        (50, 0, 0, 50),
        (51, 0, 0, 60),  # never less than required
        (1, 0, 0, 30),
        (0, 77, 0, 70),  # as much of the default as the limit allows
        (0, 500, 0, 100),
        (41, 50, 0, 50),
        (0, 0, 80, 80),  # a copy is as large as its source
        (0, 500, 85, 90),
        (90, 0, 80, 90),
    ],
)
def test_size(required: int, limit: int, source: int, chosen: int) -> None:
    assert choose_size(SizeRange(required, limit), **UNITS, source_bytes=source) == chosen


@pytest.mark.parametrize(
    ("required", "limit", "source", "said"),
    [
        (0, 29, 0, "the volume would have 30 bytes, because sizes are multiples of 10, and the limit is 29"),
        (0, 9, 0, "the limit is 9"),
        (41, 49, 0, "would have 50 bytes"),
        (0, 70, 80, "would have 80 bytes"),
        (70, 0, 80, "70 bytes are asked for, and the source has 80; ask for at least that"),
    ],
)
def test_no_such_size(required: int, limit: int, source: int, said: str) -> None:
    with pytest.raises(OutOfRange) as raised:
        choose_size(SizeRange(required, limit), **UNITS, source_bytes=source)
    assert said in str(raised.value)


def test_growing() -> None:
    assert whole_size(SizeRange(91), 91, 10) == 100
    with pytest.raises(OutOfRange):
        whole_size(SizeRange(91, 95), 91, 10)


@given(required=st.integers(0, 500), limit=st.integers(0, 500), source=st.integers(0, 50).map(lambda n: n * 10))
@example(required=0, limit=30, source=0)
def test_a_size_is_found_wherever_there_is_one(required: int, limit: int, source: int) -> None:
    size = SizeRange(required, limit)
    possible = [n for n in range(30, 520, 10) if size.admits(n) and n >= source]
    if required < source and required:
        possible = []  # it says less than its source: refused, not guessed at
    try:
        chosen = choose_size(size, **UNITS, source_bytes=source)
    except OutOfRange:
        assert possible == []
    else:
        assert chosen in possible
