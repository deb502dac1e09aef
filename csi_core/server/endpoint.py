"""The Unix socket that the CO talks to: a stale one is removed, a live one is not."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from csi_core.errors import ConfigError

__all__ = ["claim", "created_with_mode"]

_ANSWER_TIME_LIMIT_S = 2.0


def claim(path: Path) -> None:
    """Make way for a socket at ``path``: what a killed server left there goes.

    Raises:
        ConfigError: a server answers there, something else lies there, or the directory is missing or not ours.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        mode = 0
        if not path.parent.is_dir():
            raise ConfigError(f"driver.endpoint: the directory {path.parent} does not exist; make it first") from None
    except PermissionError:
        mode = 0
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError(
            f"driver.endpoint: this user may not make a socket in {path.parent}; run as root, or choose a directory "
            "that the user may write to"
        )
    if not mode:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"driver.endpoint: {path} is there and is no socket; remove it or choose another path")
    if _answers(path):
        raise ConfigError(f"driver.endpoint: another server answers on {path}; stop it first or choose another path")
    path.unlink(missing_ok=True)


@contextmanager
def created_with_mode(mode: int) -> Iterator[None]:
    """A socket bound inside has ``mode`` from its first moment, so nobody gets in before a chmod."""
    before = os.umask(0o777 & ~mode)
    try:
        yield
    finally:
        os.umask(before)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_ANSWER_TIME_LIMIT_S)
        try:
            client.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            # A full backlog, say: something listens there.
            return True
        return True
