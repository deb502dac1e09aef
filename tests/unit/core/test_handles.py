"""Handles of backends with several stores."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_core import handles
from csi_core.model import MAX_HANDLE_BYTES

KEY = "v-0123456789abcdef0123"


@pytest.mark.parametrize("key", [handles.new_key("v"), handles.make_key("v", "pvc-1")])
def test_a_handle_is_split_into_what_it_was_made_of(key: str) -> None:
    assert handles.KEY.fullmatch(key)
    assert handles.split(handles.join("fast-1", key), "v") == ("fast-1", key)
    assert handles.split(handles.join("fast-1", key), "s") is None
    assert len(handles.join("p" * 32, key)) <= MAX_HANDLE_BYTES


def test_a_name_leads_to_one_key_for_ever() -> None:
    assert handles.make_key("v", "pvc-1") == "v-4f483992e9d416bbfc90"  # there are volumes of it
    assert handles.make_key("s", "pvc-1")[2:] == handles.make_key("v", "pvc-1")[2:]
    assert len({handles.make_key("v", name) for name in ("a", "A", "ä", "a\u0308", "", "a ")}) == 6


def test_new_keys_differ() -> None:
    assert handles.new_key("v") != handles.new_key("v")


@pytest.mark.parametrize(
    "handle",
    [
        "",
        KEY,
        f":{KEY}",
        f"Pool:{KEY}",
        f"-p:{KEY}",
        f"../p:{KEY}",
        f"p/../q:{KEY}",
        f"p:{KEY}\n",
        f"p:{KEY}0",
        f"p:{KEY[:-1]}",
        f"p:{KEY.upper()}",
        f"p:{KEY}/../x",
        f"{'p' * 33}:{KEY}",
        "p:s-0123456789abcdef0123",
        "p:x-0123456789abcdef0123",
        f"p:{KEY[:-1]}\u0663",  # a digit, but not one of ours
        "p:v-0123456789abcdef012\0",
    ],
)
def test_everything_else_is_no_handle(handle: str) -> None:
    assert handles.split(handle, "v") is None


@given(st.text())
def test_no_text_passes_by_accident(text: str) -> None:
    found = handles.split(text, "v")
    assert found is None or f"{found[0]}:{found[1]}" == text
