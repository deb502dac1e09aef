"""Names: what was recorded is never denied."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backends.loop.names import Names

SOME = st.sets(st.text(max_size=128))


@given(recorded=SOME, added=SOME, others=SOME)
def test_what_was_recorded_is_found_and_nothing_else(recorded: set[str], added: set[str], others: set[str]) -> None:
    names = Names(recorded)
    for name in added:
        names.add(name)
    assert all(name in names for name in recorded | added)
    assert not any(name in names for name in others - recorded - added)
