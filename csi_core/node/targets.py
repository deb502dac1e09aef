"""The directories and files that mounts are put on. Made one at a time and never removed with anything in them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from csi_core.errors import FailedPrecondition

__all__ = ["remove_target", "require_directory", "target_directory", "target_file"]

_DIRECTORY_MODE = 0o750
_FILE_MODE = 0o640


def require_directory(path: Path) -> None:
    """Refuse a path that the CO had to create (a staging path) and is not a directory.

    Raises:
        FailedPrecondition: says what is there instead.
    """
    kind = _kind(path)
    if kind != "directory":
        raise FailedPrecondition(f"{path} must be a directory made by the orchestrator, and is {kind}")


def target_directory(path: Path) -> None:
    """Make an empty directory, and its parents; one that is there is fine.

    Raises:
        FailedPrecondition: something else is there, or it is not empty: a mount would hide what it holds.
    """
    path.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    try:
        path.mkdir(mode=_DIRECTORY_MODE)
    except FileExistsError:
        kind = _kind(path)
        if kind != "directory":
            raise FailedPrecondition(f"{path} must be a directory or nothing at all, and is {kind}") from None
        if any(path.iterdir()):
            raise FailedPrecondition(f"{path} is not empty; a volume is not mounted over files") from None


def target_file(path: Path) -> None:
    """Make an empty file to bind a device node on, and the parents; an empty one that is there is fine.

    Raises:
        FailedPrecondition: something else is there.
    """
    path.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, _FILE_MODE))
    except FileExistsError:
        kind = _kind(path)
        if kind != "empty file":
            raise FailedPrecondition(f"{path} must be an empty file or nothing at all, and is {kind}") from None


def remove_target(path: Path) -> None:
    """Remove an unmounted target: an empty directory or an empty file; nothing there is fine.

    Raises:
        FailedPrecondition: it holds something, which is nothing that this driver has put there.
    """
    kind = _kind(path)
    if kind == "directory":
        try:
            path.rmdir()
        except OSError as error:
            raise FailedPrecondition(f"{path} is not mounted and cannot be removed: {error.strerror}") from error
    elif kind == "empty file":
        path.unlink()
    elif kind != "nothing":
        raise FailedPrecondition(f"{path} is {kind} and no mount of ours; remove it by hand")


def _kind(path: Path) -> str:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return "nothing"
    except NotADirectoryError:
        raise FailedPrecondition(f"a parent of {path} is not a directory") from None
    if stat.S_ISLNK(status.st_mode):
        return "a symbolic link"
    if stat.S_ISDIR(status.st_mode):
        return "directory"
    if stat.S_ISREG(status.st_mode):
        return "a file with content" if status.st_size else "empty file"
    return "a special file"
