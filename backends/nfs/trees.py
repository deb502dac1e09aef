"""Walking directory trees that a tenant fills, as root: nothing that they hold may lead out of them.

Every step is relative to an open directory and follows no symbolic link, so a tree that changes while it is walked
leads nowhere else. However deep a tree is, a handful of descriptors is open.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Final

from backends.nfs.fresh import changed_ns
from csi_core.errors import Busy, NoSpace, StorageFailure

__all__ = ["copy_tree", "newest_change_ns", "opened_directory", "remove_tree"]

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC
_MAKE_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FICLONE: Final = 0x40049409
_PIECE_BYTES: Final = 8 << 20
_NO_REFLINK: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ENOTTY})
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_GONE: Final = frozenset({errno.ENOENT, errno.ESTALE, errno.ENOTDIR, errno.ELOOP})

Progress = Callable[[int], None]
"""Told the bytes done since it was last called; raises where the walk is to stop."""


@contextmanager
def opened_directory(name: str, parent: int | None = None) -> Iterator[int]:
    """Open a directory itself, never what a link of that name leads to."""
    directory = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        yield directory
    finally:
        os.close(directory)


# -- removing ---------------------------------------------------------------------------------------


def remove_tree(parent: int, name: str, check: Callable[[], None]) -> None:
    """Remove the directory ``name`` and all below it; can be stopped and taken up again at any point.

    A directory in a directory is first moved up to the top, so depth costs neither descriptors nor long paths.

    Args:
        parent: the open directory that it is in.
        name: its name there; nothing of that name is fine.
        check: called now and then; raises where the removal is to stop.
    """
    try:
        top = os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return
    try:
        while waiting := _emptied(top, top, check):
            for child in waiting:
                with opened_directory(child, top) as directory:
                    _emptied(directory, top, check)
                os.rmdir(child, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)


def _emptied(directory: int, top: int, check: Callable[[], None]) -> list[str]:
    """Unlink the files of ``directory`` and move its directories to ``top``; answer those of ``top`` itself."""
    children = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=directory)
            elif directory == top:
                children.append(entry.name)
            else:
                moved = f".moved-{secrets.token_hex(12)}"
                os.rename(entry.name, moved, src_dir_fd=directory, dst_dir_fd=top)
            check()
    return children


# -- copying ----------------------------------------------------------------------------------------


def copy_tree(source: int, target: int, progress: Progress, *, guarded: bool = False, resume: bool = False) -> None:
    """Copy all that is in the open directory ``source`` into the empty one ``target``, which nobody else reaches.

    Blocks are shared where the filesystem can. Owners, permissions, times, extended attributes, hard links and special
    files are kept.

    Args:
        source: what a tenant fills, perhaps at this moment.
        target: where it goes.
        progress: told of every file.
        guarded: no device can be opened in ``source``: that spares a look at each file before it is opened.
        resume: ``target`` holds what an earlier call made before it was interrupted. Files that are whole stay: they
            have their time of change only when all else is done.

    Raises:
        NoSpace: the target is full.
        Busy: the source was changed under the walk's feet.
    """
    copy = _Copy(progress, guarded, resume)
    try:
        copy.run(source, target)
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpace(f"the copy does not fit: {error.strerror}") from error
        if error.errno in _GONE:
            raise Busy("the volume was changed while it was copied; repeat the call") from error
        raise StorageFailure(f"the copy failed: {error.strerror}") from error


class _Copy:
    def __init__(self, progress: Progress, guarded: bool, resume: bool) -> None:
        self._progress = progress
        self._guarded = guarded
        self._resume = resume
        self._links = f".links-{secrets.token_hex(12)}"
        self._linked: set[int] = set()

    def run(self, source: int, target: int) -> None:
        here, there = os.open(".", _DIRECTORY, dir_fd=source), os.open(".", _DIRECTORY, dir_fd=target)
        top = os.dup(target)
        # What is to be done in each directory above this one, and which directory that is.
        above: list[tuple[os.stat_result, os.stat_result, list[str]]] = []
        try:
            waiting = self._entries(here, there, top)
            while True:
                if waiting:
                    name = waiting.pop()
                    above.append((os.fstat(here), os.fstat(there), waiting))
                    here = _replaced(here, name)
                    with suppress(FileExistsError) if self._resume else nullcontext():
                        os.mkdir(name, 0o700, dir_fd=there)
                    there = _replaced(there, name)
                    waiting = self._entries(here, there, top)
                    continue
                if not above:
                    break
                _keep(os.fstat(here), here, there)
                parent, made, waiting = above.pop()
                here = _risen(here, parent)
                there = _risen(there, made)
            if self._linked:
                remove_tree(top, self._links, lambda: None)
            _keep(os.fstat(here), here, there)
        finally:
            for directory in (here, there, top):
                os.close(directory)

    def _entries(self, here: int, there: int, top: int) -> list[str]:
        """Copy all that is no directory; answer the names of those that are."""
        directories: list[str] = []
        if self._resume:
            _clear(here, there)
        with os.scandir(here) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.name)
                    continue
                # A path descriptor first: to open a pipe waits, and to open a device may do anything.
                readable = self._guarded and entry.is_file(follow_symlinks=False)
                found = os.open(entry.name, _READ_FILE if readable else _LOOK, dir_fd=here)
                try:
                    self._entry(found, entry.name, there, top, readable=readable)
                finally:
                    os.close(found)
        return directories

    def _entry(self, found: int, name: str, there: int, top: int, *, readable: bool) -> None:
        status = os.fstat(found)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR or (readable and kind != stat.S_IFREG):
            raise OSError(errno.ESTALE, "it became something else")
        if self._resume and self._there_already(status, name, there):
            self._progress(status.st_blocks * 512)
            return
        if status.st_nlink > 1 and status.st_ino in self._linked:
            os.link(f"{self._links}/{status.st_ino}", name, src_dir_fd=top, dst_dir_fd=there, follow_symlinks=False)
            return
        if kind == stat.S_IFREG:
            if readable:
                self._file(found, status, name, there)
            else:
                with _reopened(found) as content:
                    self._file(content, status, name, there)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink("", dir_fd=found), name, dir_fd=there)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=there, follow_symlinks=False)
            times = (status.st_atime_ns, status.st_mtime_ns)
            os.utime(name, ns=times, dir_fd=there, follow_symlinks=False)
        else:
            os.mknod(name, kind | 0o600, status.st_rdev, dir_fd=there)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=there, follow_symlinks=False)
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=there)
            times = (status.st_atime_ns, status.st_mtime_ns)
            os.utime(name, ns=times, dir_fd=there, follow_symlinks=False)
        if status.st_nlink > 1:
            self._remember(status.st_ino, name, there, top)

    def _there_already(self, status: os.stat_result, name: str, there: int) -> bool:
        """Whether a file was copied before; anything else of that name is removed, to be made again."""
        try:
            made = os.stat(name, dir_fd=there, follow_symlinks=False)
        except FileNotFoundError:
            return False
        whole = ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_nlink")
        if stat.S_ISREG(made.st_mode) and made.st_nlink == 1:
            same = all(getattr(made, field) == getattr(status, field) for field in whole)
            if same:
                return True
        os.unlink(name, dir_fd=there)
        return False

    def _remember(self, inode: int, name: str, there: int, top: int) -> None:
        """Keep a further link at a known place: the first name of the file may be a long way off."""
        if not self._linked:
            os.mkdir(self._links, 0o700, dir_fd=top)
        link = f"{self._links}/{inode}"
        os.link(name, link, src_dir_fd=there, dst_dir_fd=top, follow_symlinks=False)
        self._linked.add(inode)

    def _file(self, content: int, status: os.stat_result, name: str, there: int) -> None:
        made = os.open(name, _MAKE_FILE, status.st_mode & 0o777, dir_fd=there)
        try:
            self._content(content, made, status)
            _keep(status, content, made)
        finally:
            os.close(made)

    def _content(self, content: int, made: int, status: os.stat_result) -> None:
        if status.st_size:
            try:
                fcntl.ioctl(made, _FICLONE, content)
            except OSError as error:
                if error.errno not in _NO_REFLINK:
                    raise
                _copy_data(content, made, status.st_size, self._progress)
                return
        self._progress(status.st_blocks * 512)


def _clear(here: int, there: int) -> None:
    """Remove from ``there`` what ``here`` has not, or has as another kind: directories and all else."""
    with os.scandir(here) as entries:
        wanted = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    with os.scandir(there) as entries:
        made = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    for name, is_directory in made.items():
        if wanted.get(name) is not is_directory:
            if is_directory:
                remove_tree(there, name, lambda: None)
            else:
                os.unlink(name, dir_fd=there)


def _copy_data(content: int, made: int, size_bytes: int, progress: Progress) -> None:
    """Copy what is no hole."""
    os.ftruncate(made, size_bytes)
    offset = 0
    while offset < size_bytes:
        try:
            offset = os.lseek(content, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return  # nothing but a hole up to the end
        end = min(os.lseek(content, offset, os.SEEK_HOLE), size_bytes)
        while offset < end:
            done = os.copy_file_range(content, made, min(_PIECE_BYTES, end - offset), offset, offset)
            if not done:  # made shorter meanwhile
                return
            offset += done
            progress(done)


def _keep(status: os.stat_result, original: int, made: int) -> None:
    """Owner, permissions, extended attributes and times, in an order in which none undoes another."""
    new = os.fstat(made)
    if (new.st_uid, new.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(made, status.st_uid, status.st_gid)
        new = os.fstat(made)  # of another owner's file the kernel takes some permissions
    if new.st_mode != status.st_mode:
        os.fchmod(made, stat.S_IMODE(status.st_mode))
    for attribute in os.listxattr(original):
        with suppress(FileNotFoundError):
            os.setxattr(made, attribute, os.getxattr(original, attribute))
    os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))


@contextmanager
def _reopened(found: int) -> Iterator[int]:
    """Open for reading what a path descriptor shows, and nothing else."""
    content = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NOATIME | os.O_CLOEXEC)
    try:
        yield content
    finally:
        os.close(content)


def _replaced(directory: int, name: str) -> int:
    child = os.open(name, _DIRECTORY, dir_fd=directory)
    os.close(directory)
    return child


def _risen(directory: int, parent: os.stat_result) -> int:
    """The directory above, which must be the one that was come from: a tenant may have moved this one meanwhile."""
    above = os.open("..", _DIRECTORY, dir_fd=directory)
    if not os.path.samestat(os.fstat(above), parent):
        os.close(above)
        raise OSError(errno.ESTALE, "it was moved")
    os.close(directory)
    return above


# -- watching ---------------------------------------------------------------------------------------


def newest_change_ns(directory: int, check: Callable[[], None]) -> int:
    """When anything in the open directory was changed last: the latest ctime of all there is in it.

    Raises:
        Busy: it is being changed right now.
    """
    here = os.open(".", _DIRECTORY, dir_fd=directory)
    newest = changed_ns(here, ".")
    above: list[tuple[os.stat_result, list[str]]] = []
    try:
        waiting: list[str] | None = None
        while True:
            if waiting is None:
                waiting = []
                with os.scandir(here) as entries:
                    for entry in entries:
                        newest = max(newest, changed_ns(here, entry.name))
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.name)
                check()
            if waiting:
                name = waiting.pop()
                above.append((os.fstat(here), waiting))
                here, waiting = _replaced(here, name), None
            elif above:
                parent, waiting = above.pop()
                here = _risen(here, parent)
            else:
                return newest
    except OSError as error:
        if error.errno in _GONE:
            raise Busy("the volume was changed while it was copied; repeat the call") from error
        raise StorageFailure(f"the volume cannot be read: {error.strerror}") from error
    finally:
        os.close(here)
