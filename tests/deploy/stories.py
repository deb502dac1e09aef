"""Examples applied to an installed driver, and everything that they made deleted again."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import helm
from cluster import Cluster
from examples import EXAMPLES, Example
from installed import Driver

from csi_core._proto import csi_pb2 as pb

__all__ = ["GIB", "applied", "command", "example", "grow", "running", "stories", "use_by_hand", "values_of"]

GIB = 1 << 30
PREREQUISITE = re.compile(r"Apply (\S+)\.yaml first")


def values_of(driver: str) -> Path:
    """The chart's values for a driver."""
    return helm.CHART / "drivers" / f"{driver}.yaml"


def command(*argv: str | Path) -> None:
    """What an administrator does on the node beforehand."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv[0]}: {done.stderr}"


def example(name: str, edit: Callable[[str], str] = str) -> Example:
    """A file of deploy/examples (``loop/clone``), as its reader has edited it."""
    (found,) = (e for e in EXAMPLES if e.name == name)
    return replace(found, edit=edit)


def stories(directory: str, *but: str) -> list[str]:
    """The names of a directory's examples."""
    return [e.name for e in EXAMPLES if e.path.parent.name == directory and e.path.stem not in but]


@contextmanager
def applied(driver: Driver, name: str, edit: Callable[[str], str] = str) -> Iterator[Cluster]:
    """An example, after those that it says are to be applied first, on an otherwise empty cluster; nothing is left."""
    chosen = example(name, edit)
    first = PREREQUISITE.findall("\n".join(chosen.expectation))
    before = [example(f"{chosen.path.parent.name}/{story}", edit).objects for story in first]
    with running(driver, *before, chosen.objects) as cluster:
        assert cluster.volumes or cluster.pods
        yield cluster


@contextmanager
def running(driver: Driver, *stories: Sequence[Mapping[str, Any]]) -> Iterator[Cluster]:
    """A cluster to which these objects are applied, in turn."""
    cluster = Cluster(driver)
    try:
        for objects in stories:
            cluster.apply(objects)
        yield cluster
    except BaseException:
        # So that one example that does not work is one test that fails.
        with suppress(Exception):
            cluster.delete_everything()
        raise
    cluster.delete_everything()
    assert is_empty(driver)


def is_empty(driver: Driver) -> bool:
    """Whether the storage holds nothing any more."""
    controller = driver.sidecars.driver.controller
    volumes = controller.ListVolumes(pb.ListVolumesRequest(), timeout=10).entries
    snapshots = controller.ListSnapshots(pb.ListSnapshotsRequest(), timeout=10).entries
    return not volumes and not snapshots


def use_by_hand(driver: Driver, name: str) -> None:
    """Make the volume with the command that the example says, and put its id where the example says."""
    story = example(name)
    command = re.search(r"csi-core volumes create [^;]+", "\n".join(story.expectation))
    assert command
    made = driver.node.started["csi-core"].run(*command[0].split())
    objects = story.objects
    (csi,) = (o["spec"]["csi"] for o in objects if o["kind"] == "PersistentVolume")
    handle = re.search(re.sub("v-.*", r"v-\\w+", csi["volumeHandle"]), made)
    assert handle, f"the example's id {csi['volumeHandle']} is not of the form that the command printed: {made}"
    csi["volumeHandle"] = handle[0]
    with running(driver, objects) as cluster:
        assert cluster.volumes["kept"].handle == handle[0]


def grow(driver: Driver, name: str) -> None:
    """Apply the example of expansion, and give its claim the size that its second line says."""
    assert '"storage":"2Gi"' in example(name).expectation[1]
    with applied(driver, name) as cluster:
        (used,) = cluster.pods["grows"].values()
        before = used.size_bytes()
        if driver.sidecars.expand(used.volume, 2 * GIB):
            driver.kubelet.expand(used, 2 * GIB)
        assert used.size_bytes() > before + 0.9 * GIB
        assert driver.kubelet.usage_bytes(used) == used.size_bytes()
        assert used.read() == cluster.contents["grows"]
