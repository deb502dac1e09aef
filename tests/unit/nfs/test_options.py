"""What options, contexts and static volumes are refused or taken for."""

from __future__ import annotations

import pytest
from fake_server import FakeServer

from backends.nfs.plugin import NfsBackend
from csi_core.errors import ConfigError, FailedPrecondition, InvalidArgument
from csi_core.facade import Backend
from csi_core.model import (
    AccessMode,
    AttachRequest,
    PublishRequest,
    ShareSource,
    SizeRange,
    VolumeCapability,
    VolumeMode,
)
from csi_core.testing.contract import BackendCase, KitHost

FILESYSTEM = VolumeMode.FILESYSTEM
RWX = VolumeCapability(FILESYSTEM, AccessMode.MULTI_NODE_MULTI_WRITER)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "root"),
        ({"export": {"root": "relative"}, "server": "s"}, "absolute path"),
        ({"export": {"root": "/srv/../etc"}, "server": "s"}, "absolute path"),
        ({"export": {"root": "/srv/with space"}, "server": "s"}, "letters, digits"),
        ({"export": {"root": "/srv/x(rw)"}, "server": "s"}, "letters, digits"),
        ({"export": {"root": "/srv/x"}}, "server"),
        ({"export": {"root": "/srv/x"}, "server": "host:/path"}, "neither a host name nor an address"),
        ({"export": {"root": "/srv/x", "sec": "sys,rw"}, "server": "s"}, "sec"),
        ({"export": {"root": "/srv/x", "nodeAddresses": {"a": "10.0.0.0/8"}}, "server": "s"}, "nodeAddresses"),
        ({"export": {"root": "/srv/x", "warnAt": 0.99, "stopAt": 0.5}, "server": "s"}, "warnAt"),
        ({"export": {"root": "/srv/x", "sqash": "root"}, "server": "s"}, "sqash"),
    ],
)
def test_wrong_options_are_named(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        NfsBackend(given)


def test_a_node_needs_nothing_but_the_context() -> None:
    backend = Backend.load("nfs", NfsBackend({"role": "node"}))
    backend.start(KitHost("node-a", "nfs"))
    assert backend.get_volume("v-" + "0" * 20) is not None
    assert backend.get_volume("../etc") is None
    request = AttachRequest("v-" + "0" * 20, RWX, context={"server": "fd00::1", "share": "/srv/x"})
    source = backend.attach_volume(request)
    assert source == ShareSource("nfs", "[fd00::1]:/srv/x", ("nfsvers=4.2", "hard"))
    with pytest.raises(FailedPrecondition, match="controller"):
        backend.list_volumes("", 10)


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"server": "s"},
        {"server": "s", "share": "relative"},
        {"server": "s", "share": "/x/../../etc"},
        {"server": "s", "share": "/x\ny"},
        {"server": "-o", "share": "/x"},
        {"server": "s,sec=none", "share": "/x"},
        {"server": "s:/etc", "share": "/x"},
    ],
)
def test_a_context_that_names_no_share_is_refused(context: dict[str, str]) -> None:
    backend = NfsBackend({"role": "node"})
    with pytest.raises(InvalidArgument, match="volumeAttributes"):
        backend.attach_volume(AttachRequest("static.home", RWX, context=context))


def test_a_static_volume_is_never_touched(case: BackendCase, server: FakeServer) -> None:
    handle = "static.home"
    volume = case.backend.get_volume(handle)
    assert volume is not None
    assert case.backend.publish_volume(PublishRequest(handle, "node-a", RWX)) == {}
    case.backend.unpublish_volume(handle, "node-a", case.secrets)
    for act in (
        lambda: case.backend.delete_volume(handle, case.secrets),
        lambda: case.backend.expand_volume(handle, SizeRange(1 << 30)),
        lambda: case.snapshot("snap", volume),
    ):
        with pytest.raises(FailedPrecondition, match="did not make"):
            act()
    assert server.calls == []
    assert case.volumes() == []
