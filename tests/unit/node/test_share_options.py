"""Which mount options a network share takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from csi_core.errors import InvalidArgument
from csi_core.node.mountinfo import Mount
from csi_core.node.share_options import share_contradiction, share_options


@pytest.mark.parametrize(
    "option",
    [
        *("nfsvers=4.2", "vers=3", "minorversion=1", "hard", "soft", "softerr", "timeo=600", "retrans=2", "proto=tcp"),
        *(
            "rsize=1048576",
            "wsize=65536",
            "nconnect=4",
            "sec=sys",
            "sec=krb5p:krb5i",
            "actimeo=0",
            "noac",
            "noresvport",
        ),
        *(
            "noresvport",
            "lookupcache=positive",
            "nocto",
            "nolock",
            "local_lock=all",
            "nordirplus",
            "noexec",
            "nosuid",
            "noatime",
        ),
    ],
)
def test_allowed(option: str) -> None:
    assert f",{option}," in share_options("nfs", (option,), read_only=False).text


@pytest.mark.parametrize(
    "option",
    [
        *("addr=10.0.0.9", "mountaddr=10.0.0.9", "clientaddr=10.0.0.9", "bg", "retry=1000", "nosharecache", "bind"),
        *("nfsvers=2", "nfsvers=4.2x", "nfsvers", "hard=1", "timeo=-1", "timeo=", "rsize=1M", "sec=none", "proto=udp"),
        *("context=system_u:object_r:x", "remount", "suid,addr=1", "lookupcache", "nconnect=1000"),
    ],
)
def test_refused(option: str) -> None:
    with pytest.raises(InvalidArgument, match="is not allowed for a network share; allowed: ro, rw, .*nfsvers="):
        share_options("nfs", (option,), read_only=False)


def test_a_refusal_shows_no_value_that_may_be_a_password() -> None:
    with pytest.raises(InvalidArgument, match=r"'password=\*\*\*' is not allowed") as refused:
        share_options("nfs", ("hard,password=hunter2",), read_only=False)
    assert "hunter2" not in str(refused.value)
    with pytest.raises(InvalidArgument, match="'timeo=soon' is not allowed"):
        share_options("nfs", ("timeo=soon",), read_only=False)


def test_a_share_that_is_not_nfs_takes_none() -> None:
    assert share_options("cifs", (), read_only=False).text == "rw,retry=0"
    with pytest.raises(InvalidArgument, match="'username=\\*\\*\\*' is not allowed"):
        share_options("cifs", ("username=x",), read_only=False)


def test_the_last_of_several_that_contradict_each_other_holds() -> None:
    options = share_options("nfs", ("nfsvers=4.2,hard", "vers=4.1", "soft", "timeo=30"), read_only=False)
    assert options.text == "rw,vers=4.1,soft,timeo=30,retry=0"


def test_read_only_from_either_side() -> None:
    assert share_options("nfs", ("ro",), read_only=False).text == "ro,retry=0"
    assert share_options("nfs", ("rw",), read_only=True).text == "ro,retry=0"


MOUNTED = Mount(
    id=50,
    parent_id=30,
    device="0:37",
    root="/",
    path=Path("/staging"),
    options=frozenset({"rw", "relatime", "noexec"}),
    fs_type="nfs4",
    source="server:/data",
    super_options=frozenset(
        ["rw", "vers=4.2", "rsize=524288", "hard", "proto=tcp", "timeo=600", "retrans=2", "sec=sys"]
    ),
)


@pytest.mark.parametrize(
    ("flags", "difference"),
    [
        (("noexec",), ""),
        (("noexec,nfsvers=4.2,hard,timeo=600,sec=sys,tcp,rsize=1048576",), ""),
        (("noexec,vers=4",), ""),
        (("noexec,nfsvers=4.1",), "it is mounted with NFS 4.2, and 4.1 is asked for"),
        (("noexec,soft",), "it is mounted without the option soft"),
        (("noexec,timeo=30",), "it is mounted without the option timeo=30"),
        (("noexec,sec=krb5",), "it is mounted without the option sec=krb5"),
        (("nosuid",), "it differs in the mount options noexec, nosuid"),
        (("noexec,ro",), "it is mounted writable, and read-only is asked for"),
    ],
)
def test_contradictions(flags: tuple[str, ...], difference: str) -> None:
    assert share_contradiction(MOUNTED, share_options("nfs", flags, read_only=False)) == difference
