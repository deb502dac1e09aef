"""Two clients and two servers, for the tests of one module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Lab, Network


@pytest.fixture(scope="module")
def lab(scratch_disks: tuple[Path, ...]) -> Iterator[Lab]:
    """The machines. A test that stops or cuts off one puts it right again."""
    with Network() as network:
        clients = network.host("a"), network.host("b")
        servers = network.server("s"), network.server("t")
        for server, disk in zip(servers, scratch_disks, strict=False):
            server.mount_disk(disk, "/srv")
        yield Lab(*clients, *servers)
