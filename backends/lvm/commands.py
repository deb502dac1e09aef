"""LVM's commands: one configuration of our own, and its messages as errors of the contract."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from csi_core.errors import (
    AlreadyExists,
    Busy,
    CallError,
    CommandFailed,
    DataLoss,
    FailedPrecondition,
    NoSpace,
    NotFound,
    Unavailable,
)
from csi_core.run import Completed, run

__all__ = ["LogicalVolumeExists", "Lvm"]

_CHANGE_TIMEOUT_S: Final = 120.0
_REPORT_TIMEOUT_S: Final = 60.0
_CONFIG: Final = (
    # There is no udev in a container to wait for: LVM makes its device nodes itself. When a thin pool takes no more is
    # said by stopAt: a threshold in the host's file is for dmeventd, and would have LVM refuse what there is room for.
    "activation { udev_sync=0 udev_rules=0 monitoring=0 thin_pool_autoextend_threshold=100 } "
    'devices { obtain_device_list_from_udev=0 external_device_info_source="none" @FILTER@ } '
    "backup { backup=0 archive=0 } global { event_activation=0 }"
)
_ENVIRONMENT: Final = {"LVM_SUPPRESS_FD_WARNINGS": "1"}


class LogicalVolumeExists(AlreadyExists):
    """lvcreate was asked for a name that the volume group has already."""


_MEANINGS: Final[tuple[tuple[re.Pattern[str], type[CallError], str], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE), error, advice)
    for pattern, error, advice in (
        (r"already exists in volume group", LogicalVolumeExists, ""),
        (r"too large for circular buffer|exceeds maximum metadata size|metadata.*(too large|does not fit)", NoSpace,
         "the group's metadata area is full: make it larger (vgcreate --metadatasize), or delete volumes"),
        (r"insufficient (free space|suitable)|not enough (free )?(space|extents|pvs)|reached threshold|"
         r"free space in (thin )?pool|number of stripes .* exceed", NoSpace,
         "free space, or extend the volume group (vgextend)"),
        (r"volume group .* not found|cannot process volume group", Unavailable,
         "is its disk there, and does LVM's device filter let it through?"),
        (r"(refusing activation of|cannot activate) partial|partial lv|missing pv|pvs? (are|is) missing|"
         r"couldn't find device with uuid", Unavailable,
         "a disk of the volume group is missing: bring it back, or repair the group (lvconvert --repair, vgreduce)"),
        (r"volume group .* is exported", Unavailable, "take it back (vgimport)"),
        (r"failed to find logical volume", NotFound, ""),
        (r"can't get lock|resource temporarily unavailable|giving up waiting for lock", Busy, "repeat the call"),
        (r"in use|is used by another device|device or resource busy", FailedPrecondition,
         "something on this node has it open"),
        (r"only while inactive|while .* is active", FailedPrecondition, "unpublish it on this node first"),
        (r"invalid(ated)? snapshot|snapshot .* (is )?invalid", DataLoss, "its copy-on-write room ran full"),
    )
)  # fmt: skip


class Lvm:
    """Runs LVM's commands for one volume group.

    Args:
        volume_group: its name.
        device_filter: LVM's devices/filter; () leaves the system's.
    """

    def __init__(self, volume_group: str, device_filter: Sequence[str] = ()) -> None:
        self.volume_group = volume_group
        patterns = ", ".join(f'"{pattern}"' for pattern in device_filter)
        chosen = f"filter=[{patterns}] global_filter=[{patterns}]" if patterns else ""
        self._config = ["--config", _CONFIG.replace("@FILTER@", chosen)]

    def change(self, program: str, *arguments: str) -> None:
        """Run a command that changes the group; never killed, and with no question left to ask.

        Raises:
            NoSpace, Unavailable, NotFound, Busy, FailedPrecondition, LogicalVolumeExists: by what LVM said.
            CommandFailed: it said something else.
        """
        self._run([program, *self._config, "--yes", "--quiet", *arguments], _CHANGE_TIMEOUT_S, mutates=True)

    def report(self, *arguments: str) -> str:
        """Run a command that only reads, and answer its output."""
        argv = [arguments[0], *self._config, *arguments[1:]]
        if arguments[0] == "fullreport":
            argv = ["lvm", *argv]
        return self._run(argv, _REPORT_TIMEOUT_S, mutates=False).stdout

    def path(self, lv: str) -> str:
        """How commands name an LV of this group."""
        return f"{self.volume_group}/{lv}"

    def _run(self, argv: list[str], timeout_s: float, *, mutates: bool) -> Completed:
        try:
            return run(argv, timeout_s=timeout_s, mutates=mutates, env=_ENVIRONMENT)
        except CommandFailed as error:
            raise _meaning(self.volume_group, error) from None


def _meaning(volume_group: str, failed: CommandFailed) -> CallError:
    said = " ".join(line.strip() for line in failed.stderr.splitlines() if "NOT backed up" not in line)
    for pattern, error, advice in _MEANINGS:
        if pattern.search(said):
            return error(f"volume group {volume_group}: {said}{f'; {advice}' if advice else ''}")
    return failed
