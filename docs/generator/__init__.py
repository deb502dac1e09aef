"""The generated parts of the documentation, by name: functions that answer Markdown, read from the code itself."""

from __future__ import annotations

from collections.abc import Callable

from backends.loop.options import LoopOptions, LoopParameters
from backends.lvm.options import LvmOptions, LvmParameters, LvmSnapshotParameters
from backends.nfs.options import NfsOptions, NfsParameters, NfsSnapshotParameters
from backends.nfs.share_parameters import ShareParameters
from backends.sim.options import SimMutable, SimOptions, SimParameters, SimSecrets, SimSnapshotParameters
from csi_core.config import Config
from csi_core.parameter_docs import markdown_table
from generator.hooks import hooks
from generator.metrics import metrics
from generator.options import mkfs_options, mount_options, share_options

PARTS: dict[str, Callable[[], str]] = {
    "hooks": hooks,
    "metrics": metrics,
    "configuration": lambda: markdown_table(Config),
    "mkfs-options": mkfs_options,
    "mount-options": mount_options,
    "share-mount-options": share_options,
    "loop-options": lambda: markdown_table(LoopOptions),
    "loop-parameters": lambda: markdown_table(LoopParameters),
    "lvm-options": lambda: markdown_table(LvmOptions),
    "lvm-parameters": lambda: markdown_table(LvmParameters),
    "lvm-snapshot-parameters": lambda: markdown_table(LvmSnapshotParameters),
    "nfs-options": lambda: markdown_table(NfsOptions),
    "nfs-parameters": lambda: markdown_table(NfsParameters),
    "nfs-share-parameters": lambda: markdown_table(ShareParameters),
    "nfs-snapshot-parameters": lambda: markdown_table(NfsSnapshotParameters),
    "sim-options": lambda: markdown_table(SimOptions),
    "sim-parameters": lambda: markdown_table(SimParameters),
    "sim-mutable": lambda: markdown_table(SimMutable),
    "sim-snapshot-parameters": lambda: markdown_table(SimSnapshotParameters),
    "sim-secrets": lambda: markdown_table(SimSecrets),
}
