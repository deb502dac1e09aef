"""Copies that were under way when their process ended: what was being made, so that the next one can go on with it.

The note lies beside the half-made content, in ``new/KEY``. It holds for this boot of this host only: what an ended
process has written the kernel still has, what a host that crashed had not yet written is gone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

__all__ = ["Intent", "boot_id", "drop_intent", "read_intent", "write_intent"]

_FILE: Final = "intent.json"
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Intent:
    """A copy that has begun.

    Attributes:
        work: what is being made, as :class:`csi_core.background.BackgroundWork` names it.
        source_key: the volume or snapshot that is copied.
        began_ns: when, by the clock that its files are stamped with.
        boot_id: in which boot of which host.
    """

    work: str
    source_key: str
    began_ns: int
    boot_id: str


_JSON: Final = TypeAdapter(Intent)


def boot_id() -> str:
    """Another one for each boot of each host."""
    return _BOOT.read_text(encoding="ascii").strip()


def write_intent(directory: int, intent: Intent) -> None:
    """Note it in an open directory. It need not outlive the boot."""
    file = os.open(_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        os.write(file, _JSON.dump_json(intent))
    finally:
        os.close(file)


def read_intent(directory: int) -> Intent | None:
    """What is noted in an open directory; None where nothing is, or of another boot."""
    try:
        file = os.open(_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        with os.fdopen(file, "rb") as text:
            intent = _JSON.validate_json(text.read())
    except (OSError, ValidationError):
        return None
    return intent if intent.boot_id == boot_id() else None


def drop_intent(directory: int) -> None:
    """The copy is whole."""
    os.unlink(_FILE, dir_fd=directory)
