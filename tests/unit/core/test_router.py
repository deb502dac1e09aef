from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_core.errors import BackendNotLoaded, InvalidArgument, NotFound
from csi_core.facade import Backend
from csi_core.model import MAX_HANDLE_BYTES
from csi_core.router import MAX_BACKEND_NAME_BYTES, MalformedId, Router, join_id, split_id


@pytest.fixture
def router(smallest):
    return Router({name: Backend.load(name, smallest()) for name in ("loop", "nfs-1")}, "loop")


def test_by_id(router):
    backend, handle = router.by_id("nfs-1/v.01:A_z-9")
    assert (backend.name, handle) == ("nfs-1", "v.01:A_z-9")
    assert router.join_id("nfs-1", handle) == "nfs-1/v.01:A_z-9"


@pytest.mark.parametrize(
    "csi_id",
    [
        "",
        "loop",
        "loop/",
        "/v-1",
        "loop/a/b",
        "loop/..",
        "loop/.",
        "loop/a b",
        "loop/a\n",
        "loop/ä",
        "Loop/v-1",
        "-loop/v-1",
        "loop-/v-1",
        "../v-1",
        "a" * (MAX_BACKEND_NAME_BYTES + 1) + "/v",
        "loop/" + "a" * (MAX_HANDLE_BYTES + 1),
    ],
)
def test_malformed_ids_are_not_found(router, csi_id):
    with pytest.raises(MalformedId) as caught:
        router.by_id(csi_id)
    assert isinstance(caught.value, NotFound)
    assert repr(csi_id) in str(caught.value)


def test_an_id_of_a_backend_that_is_not_configured_is_no_not_found(router):
    """Deleting it must never look done: that would leak the volume."""
    with pytest.raises(BackendNotLoaded) as caught:
        router.by_id("lvm/v-1")
    assert not isinstance(caught.value, NotFound)
    assert str(caught.value) == (
        "'lvm/v-1' belongs to the backend 'lvm', which is not configured here (configured: loop, nfs-1)"
    )


NAMES = st.from_regex(r"[a-z0-9](-?[a-z0-9]){0,15}", fullmatch=True)
HANDLES = st.text("abcXYZ019._:-", min_size=1, max_size=MAX_HANDLE_BYTES).filter(lambda h: h not in (".", ".."))


@given(NAMES.filter(lambda n: len(n) <= MAX_BACKEND_NAME_BYTES), HANDLES)
def test_ids_come_apart_as_they_were_joined(name, handle):
    assert split_id(join_id(name, handle)) == (name, handle)


def test_the_longest_id_fits_the_csi():
    longest = join_id("a" * MAX_BACKEND_NAME_BYTES, "h" * MAX_HANDLE_BYTES)
    assert len(longest) == 128
    assert split_id(longest)


def test_by_parameters(router):
    given_parameters = {"backend": "nfs-1", "pool": "a"}
    backend, rest = router.by_parameters(given_parameters)
    assert (backend.name, rest) == ("nfs-1", {"pool": "a"})
    assert given_parameters == {"backend": "nfs-1", "pool": "a"}
    assert router.by_parameters({"pool": "a"})[0].name == "loop"


@pytest.mark.parametrize(
    ("name", "hint"), [("lop", "did you mean 'loop'?"), ("zzz", "configured: loop, nfs-1"), ("", "configured: loop")]
)
def test_unknown_backend_parameter(router, name, hint):
    with pytest.raises(InvalidArgument, match="there is no backend") as caught:
        router.by_parameters({"backend": name})
    assert hint in str(caught.value)


def test_all_keeps_the_order(router):
    assert [backend.name for backend in router.all] == ["loop", "nfs-1"]
