"""Waiting for servers: what a share's calls run, with another program in the place of mount(8)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from csi_core.errors import Busy, CommandFailed, FailedPrecondition, PermissionDenied, StorageFailure, Unavailable
from csi_core.model import ShareSource
from csi_core.node import shares
from csi_core.node.share_options import share_options
from csi_core.node.shares import Shares
from csi_core.run import Completed, run

OPTIONS = share_options("nfs", (), read_only=False)
DONE = Completed("", "", 0, 0.0)
Run = Callable[..., Completed]


@pytest.fixture
def instead(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], None]:
    """Run this in the place of every command."""
    return lambda command: monkeypatch.setattr(shares, "run", command)


def mount(node: Shares, server: str = "server") -> None:
    node.mount(ShareSource("nfs", f"{server}:/data"), OPTIONS, Path("/staging"))


def test_the_command(instead: Callable[[Run], None]) -> None:
    seen: list[list[str]] = []

    def command(argv: list[str], **_: object) -> Completed:
        seen.append(argv)
        return DONE

    instead(command)
    mount(Shares())
    assert seen == [["mount", "-t", "nfs", "-o", "rw,retry=0", "--", "server:/data", "/staging"]]


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("mount.nfs: access denied by server while mounting server:/data", PermissionDenied),
        ("mount.nfs: Operation not permitted", PermissionDenied),
        (
            "mount.nfs: mounting x failed, reason given by server: No such file or directory",
            FailedPrecondition,
        ),
        ("mount.nfs: Protocol not supported", FailedPrecondition),
        ("mount.nfs: No route to host", Unavailable),
        ("mount.nfs: Connection refused", Unavailable),
        ("mount.nfs: Failed to resolve server x: Name or service not known", Unavailable),
        ("mount.nfs: something new", StorageFailure),
    ],
)
def test_what_mount_says(instead: Callable[[Run], None], said: str, kind: type[Exception]) -> None:
    def command(argv: list[str], **_: object) -> Completed:
        raise CommandFailed(argv, 32, said)

    instead(command)
    with pytest.raises(kind, match="server:/data") as caught:
        mount(Shares())
    assert caught.type is kind
    assert said in str(caught.value)


def test_a_command_that_hangs_is_killed(instead: Callable[[Run], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "_MOUNT_S", 0.2)
    instead(lambda _, **options: run(["sleep", "60"], **options))
    begun_at = time.monotonic()
    with pytest.raises(Unavailable, match=r"server server has not answered mount within 0.2 s; .* other servers go on"):
        mount(Shares())
    assert time.monotonic() - begun_at < 5


class Held:
    """A command that takes until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = threading.Semaphore(0)

    def __call__(self, argv: list[str], **_: object) -> Completed:
        if "dead:/data" in argv:
            self.begun.release()
            self.go.wait(10)
        return DONE


def test_few_calls_wait_for_one_server_and_none_for_another(
    instead: Callable[[Run], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "_PATIENCE_S", 0.1)
    held, node = Held(), Shares()
    instead(held)
    waiting = [threading.Thread(target=mount, args=(node, "dead")) for _ in range(4)]
    for thread in waiting:
        thread.start()
        assert held.begun.acquire(timeout=5)
    with pytest.raises(Busy, match="other calls wait for the server dead already"):
        mount(node, "dead")
    mount(node, "living")
    held.go.set()
    for thread in waiting:
        thread.join()
    mount(node, "dead")


def test_a_server_known_to_be_silent_is_asked_by_one_call_at_a_time(
    instead: Callable[[Run], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "_MOUNT_S", 0.1)
    held, node = Held(), Shares()
    instead(lambda _, **options: run(["sleep", "60"], **options))
    with pytest.raises(Unavailable):
        mount(node, "dead")
    instead(held)
    one = threading.Thread(target=mount, args=(node, "dead"))
    one.start()
    assert held.begun.acquire(timeout=5)
    begun_at = time.monotonic()
    with pytest.raises(Busy):
        mount(node, "dead")
    assert time.monotonic() - begun_at < 1, "nobody waits for a server that is known to be silent"
    held.go.set()
    one.join()
    mount(node, "dead")
