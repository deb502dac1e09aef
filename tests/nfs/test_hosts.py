"""The machines of these tests are what they claim to be."""

from __future__ import annotations

from pathlib import Path

import pytest
from hosts import Network

pytestmark = pytest.mark.needs_kernel("nfs")


def test_two_clients_and_two_servers_are_separate_machines(scratch_disks: tuple[Path, ...]) -> None:
    with Network() as network:
        clients = [network.host(name) for name in ("a", "b")]
        servers = [network.server(name) for name in ("s", "t")]
        for server, disk in zip(servers, scratch_disks, strict=False):
            server.mount_disk(disk, "/srv")
            server.export("/srv/data")
        for client in clients:
            for server in servers:
                client.run("mkdir", "-p", f"/run/{server.name}")
                client.run(
                    "mount", "-t", "nfs4", "-o", "vers=4.2", f"{server.address}:/srv/data", f"/run/{server.name}"
                )
        a, b = clients
        (a.path("/run/s") / "file").write_text("from a", encoding="utf-8")
        assert (b.path("/run/s") / "file").read_text(encoding="utf-8") == "from a"
        assert not (b.path("/run/t") / "file").exists()
        assert (servers[0].path("/srv/data") / "file").read_text(encoding="utf-8") == "from a"
        assert a.mounts() == ["/run/s", "/run/t"]
        a.cut_off()
        assert "1 received" not in b.run("ping", "-c1", "-W1", a.address, check=False)
        a.reconnect()
        servers[0].stop_nfsd()
        servers[0].start_nfsd()
        (a.path("/run/s") / "file").write_text("again", encoding="utf-8")
