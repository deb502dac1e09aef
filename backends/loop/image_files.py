"""The files of the layout ``images``: one for each volume and snapshot, in one directory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Final

from backends.loop import images
from csi_core import durable
from csi_core.errors import DataLoss
from csi_core.faults import fault

__all__ = ["ImageFiles"]

_SUFFIX: Final = ".img"
_SCAN_BATCH: Final = 500


class ImageFiles:
    """The images of one pool, below its directory: ``images/<key>.img``; ``quarantine/`` for files nobody knows."""

    def __init__(self, pool_directory: Path) -> None:
        self.directory = pool_directory / "images"
        self.quarantine = pool_directory / "quarantine"

    def prepare(self) -> None:
        """Make the directories."""
        for directory in (self.directory, self.quarantine):
            directory.mkdir(mode=0o700, exist_ok=True)
        durable.sync(self.directory.parent)

    def path(self, key: str) -> Path:
        """The image of a volume or snapshot, whether it is there or not."""
        return self.directory / f"{key}{_SUFFIX}"

    def found(self, key: str) -> os.stat_result | None:
        """The image's inode, or None where there is no image."""
        try:
            return self.path(key).stat(follow_symlinks=False)
        except FileNotFoundError:
            return None

    @contextmanager
    def opened(self, key: str, *, create: bool = False, write: bool = True) -> Iterator[int]:
        """A descriptor of the image.

        Raises:
            DataLoss: it is missing, and ``create`` is not set.
        """
        with ExitStack() as stack:
            try:
                image = stack.enter_context(images.opened(self.path(key), create=create, write=write))
            except FileNotFoundError:
                raise DataLoss(
                    f"{self.path(key)} is missing; put it back from a backup, or delete its volume or snapshot"
                ) from None
            yield image

    def ensure(self, key: str, size_bytes: int, *, thick: bool) -> None:
        """Make the image, or make it longer, up to ``size_bytes``; durable on return. Never shorter.

        Raises:
            NoSpace: the filesystem cannot hold it.
        """
        with images.storage_errors(f"image {key}"), self.opened(key, create=True) as image:
            fault("loop.image.after_open")
            present_bytes = os.fstat(image).st_size
            if thick:
                try:
                    images.allocate(image, size_bytes)
                except OSError:
                    # What it took before the filesystem was full belongs to others, and is in nobody's books.
                    os.ftruncate(image, present_bytes)
                    raise
            elif present_bytes < size_bytes:
                os.ftruncate(image, size_bytes)
            fault("loop.image.before_sync")
            os.fsync(image)
            fault("loop.image.after_sync")
            durable.sync(self.directory)

    def own(self, key: str) -> None:
        """Give the image blocks of its own, shared with no other; durable after :meth:`ensure`."""
        with images.storage_errors(f"image {key}"), self.opened(key) as image:
            images.own_blocks(image)

    def free(
        self,
        key: str,
        stopping: Callable[[], bool] = lambda: False,  # noqa: ARG002 - soon done
        urgent: Callable[[], bool] = lambda: False,  # noqa: ARG002
    ) -> None:
        """Free the image; durable after :meth:`sync`."""
        images.free(self.path(key))

    def sync(self) -> None:
        """Make names, and that they are gone, durable."""
        durable.sync(self.directory)

    def allocated_bytes(self) -> int:
        """What all images together have on disk; blocks that several share count for each."""
        allocated_bytes = 0
        with os.scandir(self.directory) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # freed since it was listed
                    allocated_bytes += entry.stat(follow_symlinks=False).st_blocks * 512
        return allocated_bytes

    def strangers(self, known: Callable[[list[str]], set[str]]) -> Iterator[Path]:
        """Files among the images that belong to no record.

        Args:
            known: answers those of the keys it is given that have a record.
        """
        with os.scandir(self.directory) as entries:
            names = (entry.name for entry in entries)
            while batch := list(islice(names, _SCAN_BATCH)):
                keys = {name: name.removesuffix(_SUFFIX) for name in batch if name.endswith(_SUFFIX)}
                ours = known(list(keys.values()))
                unknown = (self.directory / name for name in batch if keys.get(name) not in ours)
                # Not one that was deleted since it was listed: the image goes first, its record then.
                yield from (path for path in unknown if os.path.lexists(path))

    def isolate(self, stranger: Path) -> Path:
        """Move a file that nobody knows out of the way; answer where it is now. Nothing is deleted."""
        target = self.quarantine / f"{stranger.name}.{time.time_ns()}"
        fault("loop.quarantine.before_rename")
        stranger.rename(target)
        fault("loop.quarantine.after_rename")
        durable.sync(self.quarantine)
        durable.sync(self.directory)
        return target
