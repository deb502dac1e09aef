"""Options, claims and the merging of block ranges."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.loop.claims import Claims
from backends.loop.comparing import merged
from backends.loop.options import LoopParameters
from backends.loop.plugin import LoopBackend
from csi_core.errors import Busy, ConfigError, InvalidArgument
from csi_core.parameters import parse_parameters


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "'pools' is required"),
        ({"pools": {}}, "pools"),
        ({"pools": {"local": {}}}, "'pools.local.path' is required"),
        ({"pools": {"local": {"path": "relative"}}}, "absolute"),
        ({"pools": {"Local": {"path": "/p"}}}, "'Local'"),
        ({"pools": {"a": {"path": "/a"}, "b": {"path": "/b"}}}, "defaultPool must be one of a, b"),
        ({"pools": {"a": {"path": "/a"}}, "defaultPool": "b"}, "'b' is not one of the pools"),
        ({"pools": {"a": {"path": "/a", "capacity": "10 potatoes"}}}, "10Gi"),
        ({"pools": {"a": {"path": "/a", "warnAt": 0.9, "stopAt": 0.8}}}, "warnAt must not be above stopAt"),
        ({"pools": {"a": {"path": "/a", "overcommit": 0.5}}}, "overcommit"),
        ({"pool": {"a": {"path": "/a"}}}, "did you mean 'pools'"),
    ],
)
def test_wrong_options_name_the_key_and_the_fix(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        LoopBackend(options)
    assert said in str(raised.value)


def test_sizes_and_names_are_spelled_as_in_kubernetes() -> None:
    backend = LoopBackend({"pools": {"local": {"path": "/p", "capacity": "10Gi", "freezeLimitSeconds": 2}}})
    pool = backend._options.pools["local"]
    assert (pool.capacity, pool.freeze_limit_seconds, backend._options.default) == (10 << 30, 2, "local")


def test_parameters_are_strict() -> None:
    assert parse_parameters(LoopParameters, {"provisioning": "thick"}, "parameter").provisioning == "thick"
    with pytest.raises(InvalidArgument, match="provisioning"):
        parse_parameters(LoopParameters, {"provisioning": "thicc"}, "parameter")
    with pytest.raises(InvalidArgument, match="did you mean 'provisioning'"):
        parse_parameters(LoopParameters, {"provisionning": "thin"}, "parameter")


def test_exclusive_claims_keep_everybody_out_and_shared_ones_only_those() -> None:
    claims = Claims()
    with claims.shared(["a", "b", "a"]), claims.shared(["b"]):
        assert claims.held("a")
        with pytest.raises(Busy), claims.exclusive("c", "b"):
            pass
        assert not claims.held("c")
        with claims.exclusive("c"):
            with pytest.raises(Busy), claims.shared(["a", "c"]):
                pass
            with pytest.raises(Busy), claims.exclusive("c"):
                pass
    assert not any(claims.held(key) for key in "abc")
    with pytest.raises(ZeroDivisionError), claims.exclusive("a"):
        _ = 1 / 0
    assert not claims.held("a")


SECTORS = st.integers(0, 128).map(lambda sectors: sectors * 512)
RANGES = st.lists(st.tuples(SECTORS, st.integers(1, 40)), max_size=12).map(
    lambda pairs: sorted((start, start + sectors * 512) for start, sectors in pairs)
)


@given(RANGES, SECTORS, st.integers(1, 16).map(lambda blocks: blocks * 4096))
def test_merged_ranges_cover_every_byte_once(ranges: list[tuple[int, int]], start: int, size: int) -> None:
    joined = list(merged(ranges, start, size))
    covered = {byte for r in joined for byte in range(r.offset_bytes, r.offset_bytes + r.size_bytes, 512)}
    for first, end in ranges:
        assert covered.issuperset(range(max(first, start), min(end, size), 512))
    assert all(r.offset_bytes + r.size_bytes > start for r in joined)
    assert all(r.offset_bytes + r.size_bytes <= size for r in joined)
    for one, two in itertools.pairwise(joined):
        assert one.offset_bytes + one.size_bytes < two.offset_bytes
