"""The table of exports on a real server, where csi-core adds to it without exportfs: to the byte what exportfs makes of
the files, enough for the kernel, safe beside an administrator's exportfs, and fenced as ever.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hosts import Lab
from publishing import RWX, Process, create, delete, mount, mounted_at, publish, unpublish

from csi_core._proto import csi_pb2 as pb
from csi_core.faults import FAULT_TRACE_VARIABLE
from csi_core.testing.harness import ServerProcess

pytestmark = pytest.mark.needs_kernel("nfs")

GONE = ("ESTALE", "EIO", "EACCES")
NODES = ("node-a", "node-b")


@dataclass(frozen=True)
class Controller:
    """The driver on server ``s``, and which fault points it has passed."""

    driver: ServerProcess
    trace: Path

    @contextmanager
    def added(self, count: int) -> Iterator[None]:
        """So many entries are made within without exportfs."""
        before = self._added()
        yield
        assert self._added() - before == count

    def _added(self) -> int:
        return self.trace.read_text(encoding="utf-8").split().count("nfs.etab.after_flush")


@pytest.fixture(scope="module")
def controller(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """One that has let in a first node: only then has it seen how exportfs writes an entry."""
    directory = tmp_path_factory.mktemp("controller")
    lab.s.run("mkdir", "/srv/root")
    addresses = dict(zip(NODES, (lab.a.address, lab.b.address), strict=True))
    export = {"root": "/srv/root", "nodeAddresses": addresses, "resolveNodes": False}
    config = {"backends": {"nfs": {"options": {"mode": "export", "server": lab.s.address, "export": export}}}}
    environment = {FAULT_TRACE_VARIABLE: str(directory / "trace")}
    with ServerProcess(config, directory, run_on=lab.s.enter, env=environment) as driver:
        controller = Controller(driver, directory / "trace")
        first = create(driver)
        publish(driver, first, "node-a")
        yield controller
        delete(driver, first)


def table(lab: Lab) -> list[str]:
    return sorted(lab.s.path("/var/lib/nfs/etab").read_text(encoding="utf-8").splitlines())


def test_an_entry_is_what_exportfs_makes_of_the_file(controller: Controller, lab: Lab) -> None:
    volumes = [create(controller.driver) for _ in range(3)]
    with controller.added(2):
        publish(controller.driver, volumes[0], "node-a")
        publish(controller.driver, volumes[1], "node-b")
    with controller.added(1):  # a second client of a path is exportfs's work
        publish(controller.driver, volumes[2], "node-a", RWX)
        publish(controller.driver, volumes[2], "node-b", RWX)
    before = table(lab)
    assert len(before) == 5
    lab.s.run("exportfs", "-r")
    assert table(lab) == before
    delete(controller.driver, *volumes)
    assert len(table(lab)) == 1


def test_a_client_that_was_denied_is_let_in_and_fenced(controller: Controller, lab: Lab) -> None:
    volume = create(controller.driver)
    with pytest.raises(AssertionError, match="denied|No such file|not permitted"):
        mount(lab.b, volume)
    with controller.added(1):
        publish(controller.driver, volume, "node-b")
    with mounted_at(lab.b, volume) as path:
        b = Process(lab.b)
        assert b("open", f"{path}/file") is None
        assert b("write", f"{path}/file", "b", 0, 4096) is None
        unpublish(controller.driver, volume, "node-b")
        assert b("write", f"{path}/file", "z", 0, 4096) in GONE
        with controller.added(1):
            publish(controller.driver, volume, "node-a")
        with mounted_at(lab.a, volume):
            assert Process(lab.a)("fresh", f"{path}/file") == "b" * 4096
        assert b("open", f"{path}/new") in GONE
    delete(controller.driver, volume)


def test_an_administrator_may_export_anew_meanwhile(controller: Controller, lab: Lab) -> None:
    """Nothing gets lost, on either side: no entry of the administrator's, and none of a volume. With so many of the
    former, exportfs has read the table long before it writes it.
    """
    directories = [f"/srv/foreign/{number}" for number in range(300)]
    for directory in directories:
        lab.s.path(directory).mkdir(parents=True)
    lines = (f"{path} *(rw,no_subtree_check,fsid={number})\n" for number, path in enumerate(directories, 1))
    lab.s.path("/etc/exports.d/foreign.exports").write_text("".join(lines), encoding="ascii")
    lab.s.run("exportfs", "-r")
    before = table(lab)
    volumes = [create(controller.driver) for _ in range(8)]
    let_in: list[pb.Volume] = []
    lost: list[str] = []
    own = f"10.0.0.9:{directories[0]}"
    work = itertools.cycle((("-r",), ("-i", "-o", "rw,no_subtree_check,fsid=1", own), ("-u", own)))

    def administrate() -> None:
        while len(let_in) < len(volumes):
            options = next(work)
            lab.s.run("exportfs", *options)
            there = list(let_in)
            found = "\n".join(table(lab))
            lost.extend(f"{v.volume_id} after {options}" for v in there if v.volume_context["share"] not in found)

    administrator = threading.Thread(target=administrate)
    administrator.start()
    for volume in volumes:
        publish(controller.driver, volume, "node-a")
        let_in.append(volume)
        time.sleep(0.1)
    administrator.join()
    assert lost == []
    lab.s.run("exportfs", "-u", own, check=False)
    after = table(lab)
    assert len(after) == len(before) + 8
    lab.s.run("exportfs", "-r")
    assert table(lab) == after
    with mounted_at(lab.a, volumes[-1]) as path:
        lab.a.path(f"{path}/file").write_text("data", encoding="ascii")
    delete(controller.driver, *volumes)
    assert table(lab) == before
