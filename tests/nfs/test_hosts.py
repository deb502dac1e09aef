"""The machines of these tests are what they claim to be."""

from __future__ import annotations

import pytest
from hosts import Lab

pytestmark = pytest.mark.needs_kernel("nfs")


def test_two_clients_and_two_servers_are_separate_machines(lab: Lab) -> None:
    a, b = lab.a, lab.b
    for server in (lab.s, lab.t):
        server.export("/srv/data")
        for client in (a, b):
            client.run("mkdir", "-p", f"/run/{server.name}")
            client.run("mount", "-t", "nfs4", "-o", "vers=4.2", f"{server.address}:/srv/data", f"/run/{server.name}")
    (a.path("/run/s") / "file").write_text("from a", encoding="utf-8")
    assert (b.path("/run/s") / "file").read_text(encoding="utf-8") == "from a"
    assert not (b.path("/run/t") / "file").exists()
    assert (lab.s.path("/srv/data") / "file").read_text(encoding="utf-8") == "from a"
    assert a.mounts() == ["/run/s", "/run/t"]
    a.cut_off()
    assert "1 received" not in b.run("ping", "-c1", "-W1", a.address, check=False)
    a.reconnect()
    for client in (a, b):
        client.run("umount", "/run/s", "/run/t")
