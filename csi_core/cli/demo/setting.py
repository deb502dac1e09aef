"""The two settings of the demo: loop images with the kernel's mounts, and the simulator without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from csi_core.cli.demo.content import Files, Raw
from csi_core.cli.demo.place import Place
from csi_core.cli.demo.walk import Shape

__all__ = ["LOOP", "SIM", "Setting"]

MIB = 1 << 20
XFS_MINIMUM_BYTES = 300 * MIB


@dataclass(frozen=True, slots=True)
class Setting:
    """What is walked.

    Attributes:
        backend: the backend's configured name.
        options: the backend's options at a place.
        shapes: the volumes that are walked through their life, one after the other.
        group: two of them for the group snapshot.
        capacity_parameters: the StorageClass parameters to ask GetCapacity with.
        real_mounts: whether the kernel mounts them.
    """

    backend: str
    options: Callable[[Place], Mapping[str, object]]
    shapes: tuple[Shape, ...]
    group: tuple[Shape, Shape]
    capacity_parameters: Mapping[str, str]
    real_mounts: bool

    def config(self, place: Place) -> dict[str, object]:
        """The server's configuration."""
        return {
            "driver": {"name": f"{self.backend}.demo.csi-core.dev", "nodeId": "demo-node"},
            "log": {"format": "json", "level": "info"},
            "node": {"mounts": "kernel" if self.real_mounts else "simulated"},
            "backends": {self.backend: {"options": dict(self.options(place))}},
        }


def _shapes(*filesystems: str, files_bytes: int) -> tuple[Shape, ...]:
    """Each filesystem and raw block, thin and thick."""
    shapes = []
    for provisioning in ("thin", "thick"):
        parameters = {"provisioning": provisioning}
        for fs_type in filesystems:
            size_bytes = XFS_MINIMUM_BYTES if fs_type == "xfs" else 256 * MIB
            name = f"{fs_type or 'files'}-{provisioning}"
            shapes.append(Shape(name, False, fs_type, size_bytes, parameters, Files(files_bytes)))
        shapes.append(Shape(f"block-{provisioning}", True, "", 64 * MIB, parameters, Raw()))
    return tuple(shapes)


_LOOP_SHAPES = _shapes("ext4", "xfs", files_bytes=12 * MIB)
# The simulator copies file by file and syncs each one.
_SIM_SHAPES = _shapes("", files_bytes=3 * MIB)

LOOP = Setting(
    backend="loop",
    options=lambda place: {
        "pools": {"demo": {"path": str(place.pool), "allowLoopHost": place.on_loop, "capacity": "4Gi"}}
    },
    shapes=_LOOP_SHAPES,
    group=(_LOOP_SHAPES[0], _LOOP_SHAPES[1]),
    capacity_parameters={"provisioning": "thick"},
    real_mounts=True,
)
SIM = Setting(
    backend="sim",
    options=lambda place: {"directory": str(place.pool), "capacity": "4Gi"},
    shapes=_SIM_SHAPES,
    group=(_SIM_SHAPES[0], _SIM_SHAPES[1]),
    capacity_parameters={"provisioning": "thick"},
    real_mounts=False,
)
