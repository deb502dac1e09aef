"""An NFS server without a kernel: a table, and a list of what was done to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from backends.nfs.export import ExportMode
from backends.nfs.options import NfsOptions
from backends.nfs.plugin import NfsBackend
from csi_core.hookspecs import hookimpl
from csi_core.model import AttachRequest, DirectorySource
from csi_core.testing.contract import BackendCase

NODES = {"node-a": "10.9.1.2", "node-b": "10.9.2.2"}


class FakeServer:
    """What :class:`backends.nfs.exportfs.Server` asks for."""

    def __init__(self) -> None:
        self.up = True
        self.table: dict[tuple[str, str], bool] = {}
        self.options: dict[tuple[str, str], str] = {}
        self.expired: list[set[str]] = []
        self.calls: list[str] = []
        self.refreshed = 0

    def running(self) -> bool:
        return self.up

    def granted(self) -> dict[tuple[str, str], bool]:
        return dict(self.table)

    def clients(self, path: Path) -> dict[str, bool]:
        return {address: read_only for (found, address), read_only in self.table.items() if found == str(path)}

    def serves_beyond(self, root: Path) -> bool:
        return any(not Path(path).is_relative_to(root) for path, _ in self.table)

    def grant(self, path: Path, address: str, options: str) -> None:
        self.calls.append(f"grant {path} {address}")
        self.table[str(path), address] = options.startswith("ro,")
        self.options[str(path), address] = options

    def revoke(self, path: Path, address: str) -> None:
        self.calls.append(f"revoke {path} {address}")
        self.table.pop((str(path), address), None)

    def refresh(self) -> None:
        self.refreshed += 1

    def expire(self, addresses: Collection[str]) -> None:
        self.expired.append(set(addresses))


class LocalNfs(NfsBackend):
    """The backend in mode export with a server that only pretends; a node finds the directory itself."""

    def __init__(self, options: Mapping[str, object], server: FakeServer) -> None:
        super().__init__(options)
        self._mode = ExportMode(NfsOptions.model_validate(options), server)

    @hookimpl
    def attach_volume(self, request: AttachRequest) -> DirectorySource:
        volume = self.get_volume(request.handle)
        context = request.context or (volume.context if volume else {})
        share = super().attach_volume(
            AttachRequest(request.handle, request.capability, context=context, publish_context=request.publish_context)
        )
        return DirectorySource(Path(share.remote.partition(":")[2]))


def options(root: Path, **export: object) -> dict[str, object]:
    """A root below ``root``, and files of exports beside it."""
    section = {
        "root": str(root / "root"),
        "exports_directory": str(root / "exports.d"),
        "node_addresses": NODES,
        "resolve_nodes": False,
        **export,
    }
    return {"mode": "export", "server": "192.0.2.1", "export": section}


def case_on(root: Path, server: FakeServer, **export: object) -> BackendCase:
    """A case of the conformance kit."""
    (root / "root").mkdir(exist_ok=True)
    mutable = ({"squash": "root"}, {"squash": "none", "writes": "async"})
    return BackendCase(lambda: LocalNfs(options(root, **export), server), mutable=mutable)


def data(case: BackendCase, handle: str) -> Path:
    """The content of a volume."""
    volume = case.backend.get_volume(handle)
    assert volume is not None
    return Path(volume.context["share"])


def wait_for(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    """What is done in the background has so long."""
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, "not in time"
        time.sleep(0.02)
