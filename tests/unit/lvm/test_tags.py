"""What an LV carries comes back as it was, in LVM's alphabet and within its lengths."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from backends.lvm import tags

TAG = re.compile(r"[A-Za-z0-9_+.\-/=!:&#]{1,1024}")

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=700)


@given(st.dictionaries(text.filter(bool).map(lambda name: name[:40]), text, max_size=6))
@example({"\U0010ffff" * 40: "\u00e4" * 700})
def test_any_text_comes_back(fields):
    encoded = tags.encode(fields)
    assert all(TAG.fullmatch(tag) and not tag.startswith("-") for tag in encoded)
    assert tags.decode(reversed(encoded)) == fields


def test_long_values_take_several_tags():
    encoded = tags.encode({"param.long": "ä" * 1024})
    assert len(encoded) == 7
    assert encoded[1].startswith("csi.param.long+1=")


def test_plain_values_stay_readable():
    assert tags.encode({"name": "pvc-6ba7b810"}) == ["csi.name=pvc-6ba7b810"]


def test_tags_of_others_are_left_alone():
    assert tags.decode(["backup", "csi.", "csi.=x", "csi.name", "owner=csi.name=x", "csi.state=creating"]) == {
        "state": "creating"
    }
