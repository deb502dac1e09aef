"""Two clients and two servers: one set for the whole tier, empty for each module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Lab, Network


@pytest.fixture(scope="session")
def machines(scratch_disks: tuple[Path, ...]) -> Iterator[Lab]:
    """The machines; to make them takes seconds."""
    with Network() as network:
        clients = network.host("a"), network.host("b")
        servers = network.server("s"), network.server("t")
        for server, disk in zip(servers, scratch_disks, strict=False):
            server.mount_disk(disk, "/srv")
        yield Lab(*clients, *servers)


@pytest.fixture(scope="module")
def lab(machines: Lab) -> Iterator[Lab]:
    """The machines, for the tests of one module. A test that stops or cuts off one puts it right again."""
    yield machines
    for server in (machines.s, machines.t):
        server.serve_again()
    for client in (machines.a, machines.b):
        client.tidy()
    for server in (machines.s, machines.t):
        server.clear()
