"""Growing an unmounted ext4: the check takes as long as it takes, and is not done for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from csi_core import deadline
from csi_core.node import growth
from csi_core.node.ext4 import Superblock
from csi_core.run import Completed


def test_a_check_that_outlives_the_call_is_followed_by_the_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next call would begin with the same check, and a large filesystem would never be staged."""
    ran = []

    def run(argv: Sequence[str], **_: Any) -> Completed:
        deadline.check()
        ran.append(argv[0])
        if argv[0] == "e2fsck":
            deadline._ends_at.set(0.0)
        return Completed("", "", 0, 0.0)

    monkeypatch.setattr(growth, "run", run)
    monkeypatch.setattr(growth, "device_size_bytes", lambda _device: 2 << 20)
    monkeypatch.setattr(Superblock, "read", lambda _device: SimpleNamespace(fills=lambda _bytes: False))
    with deadline.call_deadline(3600):
        growth.grow_unmounted_ext4(Path("/dev/none"))
    assert ran == ["e2fsck", "resize2fs"]
