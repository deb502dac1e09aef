"""Copying one block device to another, past the page cache."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path
from typing import Final

from csi_core.background import Task
from csi_core.errors import DataLoss, NoSpace, StorageFailure

__all__ = ["copy_device"]

_CHUNK_BYTES: Final = 4 << 20
_ZEROS: Final = bytes(_CHUNK_BYTES)


def copy_device(source: Path, target: Path, size_bytes: int, task: Task, *, sparse: bool) -> None:
    """Copy the first ``size_bytes``; durable on return.

    Args:
        source: what stands still.
        target: a device at least as large.
        size_bytes: a multiple of 4096.
        task: told how far it is, and asked whether to go on.
        sparse: do not write zeros; for targets that read as zeros where nothing was written.

    Raises:
        Cancelled: it was stopped.
        DataLoss: the source cannot be read.
        NoSpace: the target's pool is full.
        StorageFailure: the target cannot be written.
    """
    with mmap.mmap(-1, _CHUNK_BYTES) as buffer:
        reader = os.open(source, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        try:
            writer = os.open(target, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
            try:
                for offset in range(0, size_bytes, _CHUNK_BYTES):
                    length = _read(reader, buffer, source, offset, min(_CHUNK_BYTES, size_bytes - offset))
                    with memoryview(buffer)[:length] as chunk:
                        if not (sparse and chunk == _ZEROS[:length]):
                            _write(writer, chunk, target, offset)
                    task.progress(offset + length, size_bytes)
                _flush(writer, target)
            finally:
                os.close(writer)
        finally:
            os.close(reader)


def _read(reader: int, buffer: mmap.mmap, source: Path, offset: int, length: int) -> int:
    done = 0
    try:
        while done < length:
            with memoryview(buffer)[done:length] as rest:
                count = os.preadv(reader, [rest], offset + done)
            if not count:
                raise DataLoss(f"{source} ends at {offset + done} bytes; it was to be copied further")
            done += count
    except OSError as error:
        raise DataLoss(f"{source} cannot be read at {offset + done}: {error.strerror}") from error
    return done


def _write(writer: int, chunk: memoryview, target: Path, offset: int) -> None:
    done = 0
    try:
        while done < len(chunk):
            with chunk[done:] as rest:
                done += os.pwritev(writer, [rest], offset + done)
    except OSError as error:
        raise _failure(target, error) from error


def _flush(writer: int, target: Path) -> None:
    try:
        os.fsync(writer)
    except OSError as error:
        raise _failure(target, error) from error


def _failure(target: Path, error: OSError) -> NoSpace | StorageFailure:
    if error.errno == errno.ENOSPC:
        return NoSpace(f"{target}: its thin pool is full; extend the pool")
    return StorageFailure(f"{target} cannot be written: {error.strerror}")
