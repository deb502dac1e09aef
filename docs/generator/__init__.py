"""The generated parts of the documentation, by name: functions that answer Markdown, read from the code itself."""

from __future__ import annotations

from collections.abc import Callable

from backends.loop.options import LoopOptions, LoopParameters
from backends.lvm.options import LvmOptions, LvmParameters, LvmSnapshotParameters
from backends.sim.options import SimMutable, SimOptions, SimParameters, SimSecrets, SimSnapshotParameters
from csi_core.config import Config
from csi_core.parameter_docs import markdown_table
from generator.hooks import hooks
from generator.metrics import metrics
from generator.options import mkfs_options, mount_options

PARTS: dict[str, Callable[[], str]] = {
    "hooks": hooks,
    "metrics": metrics,
    "configuration": lambda: markdown_table(Config),
    "mkfs-options": mkfs_options,
    "mount-options": mount_options,
    "loop-options": lambda: markdown_table(LoopOptions),
    "loop-parameters": lambda: markdown_table(LoopParameters),
    "lvm-options": lambda: markdown_table(LvmOptions),
    "lvm-parameters": lambda: markdown_table(LvmParameters),
    "lvm-snapshot-parameters": lambda: markdown_table(LvmSnapshotParameters),
    "sim-options": lambda: markdown_table(SimOptions),
    "sim-parameters": lambda: markdown_table(SimParameters),
    "sim-mutable": lambda: markdown_table(SimMutable),
    "sim-snapshot-parameters": lambda: markdown_table(SimSnapshotParameters),
    "sim-secrets": lambda: markdown_table(SimSecrets),
}
