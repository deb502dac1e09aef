"""Whether a name may be taken, from memory: nearly every CreateVolume brings a new one, and needs no look-up."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Names"]


class Names:
    """What was recorded once, as hashes: 100,000 names take some 8 MB. Any thread may call any method.

    "No" is certain, as this process alone records names. What is deleted stays here, and is looked up in vain.
    """

    def __init__(self, recorded: Iterable[str]) -> None:
        self._hashes = set(map(hash, recorded))

    def add(self, name: str) -> None:
        """Call it before ``name`` is recorded."""
        self._hashes.add(hash(name))

    def __contains__(self, name: str) -> bool:
        return hash(name) in self._hashes
