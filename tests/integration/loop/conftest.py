"""Fixtures: pools on real filesystems."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from csi_core.testing.devices import ext4_filesystem, scratch_directory, xfs_filesystem

from .cluster import Cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.needs_root)


FILESYSTEMS: dict[str, Callable[[int], AbstractContextManager[Path]]] = {"ext4": ext4_filesystem, "xfs": xfs_filesystem}


@pytest.fixture
def make_cluster() -> Iterator[Callable[..., Cluster]]:
    """Clusters over a filesystem of a given type; in the end nothing of them may be left."""
    with ExitStack() as stack:

        def make(fs_type: str = "xfs", host_bytes: int = 2 << 30, **options: object) -> Cluster:
            host = stack.enter_context(FILESYSTEMS[fs_type](host_bytes))
            directory = host / "pool"
            directory.mkdir()
            mounts = stack.enter_context(scratch_directory())
            pool = {"path": str(directory), "allowLoopHost": True, **options}
            cluster = Cluster({"pools": {"local": pool}}, mounts)
            stack.callback(take_down, cluster)
            return cluster

        yield make


def take_down(cluster: Cluster) -> None:
    """Stop the backend and detach what a failed test has left attached, so that its filesystem can go."""
    for entry in cluster.backend.list_volumes("", 1000).entries:
        cluster.detach(entry)
    cluster.backend.stop()


@pytest.fixture(params=["ext4", "xfs"])
def cluster(request: pytest.FixtureRequest, make_cluster: Callable[..., Cluster]) -> Cluster:
    """A pool without reflinks (ext4) and one with (XFS)."""
    return make_cluster(request.param)


@pytest.fixture
def xfs(make_cluster: Callable[..., Cluster]) -> Cluster:
    return make_cluster("xfs")
