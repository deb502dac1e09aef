"""The generated parts of the documentation, by name: functions that answer Markdown, read from the code itself."""

from __future__ import annotations

from collections.abc import Callable

from backends.loop.options import LoopOptions, LoopParameters, PoolOptions
from backends.sim.options import SimMutable, SimOptions, SimParameters, SimSecrets, SimSnapshotParameters
from csi_core.config import Config
from generator.hooks import hooks
from generator.models import section_tables, table
from generator.options import mkfs_options, mount_options

PARTS: dict[str, Callable[[], str]] = {
    "hooks": hooks,
    "configuration": lambda: section_tables(Config),
    "mkfs-options": mkfs_options,
    "mount-options": mount_options,
    "loop-options": lambda: table(LoopOptions),
    "loop-pool-options": lambda: table(PoolOptions),
    "loop-parameters": lambda: table(LoopParameters),
    "sim-options": lambda: table(SimOptions),
    "sim-parameters": lambda: table(SimParameters),
    "sim-mutable": lambda: table(SimMutable),
    "sim-snapshot-parameters": lambda: table(SimSnapshotParameters),
    "sim-secrets": lambda: table(SimSecrets),
}
