"""What becomes of a device that was attached for a stage that failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from csi_core.deadline import call_deadline, remaining_s
from csi_core.errors import CallError, DataLoss, FailedPrecondition, StorageFailure, TimedOut, Unavailable
from csi_core.model import AccessMode, DirectorySource, VolumeCapability, VolumeMode
from csi_core.node.requests import StageRequest
from csi_core.node.staging import stage


def failing(error: CallError, tmp_path: Path, in_use: bool = False, detach: Any = None) -> Mock:
    """The backend after a stage in which the mount fails."""
    backend = Mock()
    backend.description.mount_group = False
    backend.attach_volume.return_value = DirectorySource(tmp_path / "volume")
    backend.detach_volume.side_effect = detach
    mounts = Mock(**{"at.return_value": None, "in_use.return_value": in_use, "bind.side_effect": error})
    capability = VolumeCapability(VolumeMode.FILESYSTEM, AccessMode.SINGLE_NODE_WRITER)
    with pytest.raises(type(error)) as raised:
        stage(mounts, backend, StageRequest("v", tmp_path, capability))
    assert raised.value is error
    backend.attach_volume.assert_called_once()
    return backend


@pytest.mark.parametrize("error", [FailedPrecondition("other"), DataLoss("gone"), StorageFailure("mount failed")])
def test_after_a_final_error_it_is_let_go(error: CallError, tmp_path: Path) -> None:
    failing(error, tmp_path).detach_volume.assert_called_once_with("v")


@pytest.mark.parametrize("error", [TimedOut("mkfs still runs"), Unavailable("no answer")])
def test_what_may_still_be_at_work_keeps_it(error: CallError, tmp_path: Path) -> None:
    """The CO comes again; a device taken from under a running mkfs or mount could be given to another volume."""
    failing(error, tmp_path).detach_volume.assert_not_called()


def test_what_is_mounted_elsewhere_keeps_it(tmp_path: Path) -> None:
    failing(FailedPrecondition("other"), tmp_path, in_use=True).detach_volume.assert_not_called()


def test_letting_go_has_time_although_the_call_has_none(tmp_path: Path) -> None:
    left_s: list[float] = []
    with call_deadline(0):
        failing(StorageFailure("mount failed"), tmp_path, detach=lambda _: left_s.append(remaining_s(60)))
    assert left_s == [60]


def test_a_failure_to_let_go_is_told_beside_the_first_one(tmp_path: Path) -> None:
    error = FailedPrecondition("other")
    failing(error, tmp_path, detach=StorageFailure("busy"))
    assert error.__notes__ == ["and it could not be detached again: busy"]
