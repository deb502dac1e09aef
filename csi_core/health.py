"""What a backend says is wrong: with a volume, with its storage, or between its records and what is there."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Finding", "HealthKind", "HealthProblem"]


class HealthKind(enum.Enum):
    """CSI 1.13 ``VolumeHealthErrorType``."""

    DEGRADED = "degraded"
    INACCESSIBLE = "inaccessible"
    DATA_LOSS = "data_loss"


@dataclass(frozen=True, slots=True)
class HealthProblem:
    """Something wrong with a volume or a pool: ``reason`` in CamelCase, ``message`` for people."""

    kind: HealthKind
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Finding:
    """An inconsistency that ``diagnose`` found.

    ``repairable`` is true only where the backend can prove that the repair loses nothing.
    """

    subject: str
    problem: str
    advice: str
    repairable: bool = False
