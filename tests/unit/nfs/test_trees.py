"""Walks over what tenants have made: complete, and never out of the tree."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from backends.nfs import guarded, trees
from csi_core.errors import Busy

DEPTH = 3000


@contextmanager
def opened(path: Path):
    with trees.opened_directory(str(path)) as directory:
        yield directory


def copied(source: Path, target: Path, *, guarded: bool = False) -> list[int]:
    target.mkdir()
    done: list[int] = []
    with opened(source) as here, opened(target) as there:
        trees.copy_tree(here, there, done.append, guarded=guarded)
    return done


def facts(path: Path) -> dict[str, tuple[object, ...]]:
    """Everything about a tree that a copy must keep, by relative path."""
    found = {}
    for entry in [path, *sorted(path.rglob("*"))]:
        status = entry.lstat()
        kind = stat.S_IFMT(status.st_mode)
        content = entry.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        target = str(entry.readlink()) if entry.is_symlink() else ""
        found[str(entry.relative_to(path))] = (
            *(kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_rdev, status.st_mtime_ns),
            *(content, target, status.st_nlink if kind != stat.S_IFDIR else 0),
        )
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub/deep").mkdir(parents=True)
    (root / "sub/file").write_bytes(os.urandom(100_000))
    (root / "empty").touch()
    (root / "sub/deep/link").symlink_to("/etc/passwd")
    (root / "dangling").symlink_to("../../../nowhere")
    os.link(root / "sub/file", root / "sub/deep/hard")
    os.link(root / "sub/file", root / "hard")
    os.mkfifo(root / "pipe", 0o640)
    (root / "-rf").touch()
    (root / "new\nline").touch()
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe")).touch()
    with (root / "sparse").open("wb") as sparse:
        sparse.seek(8 << 20)
        sparse.write(b"end")
    (root / "sub/file").chmod(0o4750)
    (root / "sub").chmod(0o2710)
    os.utime(root / "sub/deep", ns=(1_000_000_001, 2_000_000_002))
    os.utime(root / "sub", ns=(1, 2))
    return root


@pytest.mark.parametrize("guarded", [False, True])
def test_a_copy_is_the_same(tree: Path, tmp_path: Path, guarded: bool) -> None:
    done = copied(tree, tmp_path / "copy", guarded=guarded)
    assert facts(tmp_path / "copy") == facts(tree)
    assert (tmp_path / "copy/hard").stat().st_ino == (tmp_path / "copy/sub/file").stat().st_ino
    assert (tmp_path / "copy/sparse").stat().st_blocks < 1000
    assert sum(done) >= 100_000


@pytest.mark.parametrize("guarded", [False, True])
def test_a_copy_that_was_interrupted_becomes_the_same(tree: Path, tmp_path: Path, guarded: bool) -> None:
    """Whatever of it is there: whole files stay as they are, and nothing else does."""
    copied(tree, tmp_path / "copy", guarded=guarded)
    made, kept = tmp_path / "copy", (tmp_path / "copy/sparse").stat().st_ino
    shutil.rmtree(made / "sub/deep")
    (made / "hard").unlink()
    (made / "empty").unlink()
    (made / "empty").mkdir()
    (made / "dangling").unlink()
    (made / "dangling").write_text("half", encoding="ascii")
    (made / "new\nline").write_text("half", encoding="ascii")
    (made / ".links-0123").mkdir()
    os.link(made / "sub/file", made / ".links-0123/1")
    (made / "stranger").touch()
    with opened(tree) as source, opened(made) as target:
        trees.copy_tree(source, target, lambda _: None, guarded=guarded, resume=True)
    assert facts(made) == facts(tree)
    assert (made / "hard").stat().st_ino == (made / "sub/file").stat().st_ino
    assert (made / "sparse").stat().st_ino == kept


@pytest.mark.needs_root
def test_a_copy_keeps_owners_devices_and_attributes(tree: Path, tmp_path: Path) -> None:
    os.chown(tree / "sub/file", 1234, 5678)
    os.chown(tree / "dangling", 4, 5, follow_symlinks=False)
    os.mknod(tree / "device", stat.S_IFBLK | 0o600, os.makedev(7, 0))
    with suppress(OSError):  # not on every filesystem
        os.setxattr(tree / "sub", "user.note", b"value")
    copied(tree, tmp_path / "copy")
    assert facts(tmp_path / "copy") == facts(tree)
    assert os.listxattr(tmp_path / "copy/sub") == os.listxattr(tree / "sub")


def test_depth_costs_no_descriptors(tmp_path: Path) -> None:
    """A tenant can nest directories as deep as they like."""
    (tmp_path / "top").mkdir()
    here = os.open(tmp_path / "top", os.O_RDONLY)
    for number in range(DEPTH):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        if number % 100 == 0:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    copied(tmp_path / "top", tmp_path / "copy")
    with opened(tmp_path / "copy") as directory:
        assert trees.newest_change_ns(directory, lambda: None) > 0
    with opened(tmp_path) as directory:
        for name in ("top", "copy"):
            trees.remove_tree(directory, name, lambda: None)
    assert list(tmp_path.iterdir()) == []


def test_removing_follows_nothing(tmp_path: Path) -> None:
    victim, tree = tmp_path / "victim", tmp_path / "tree"
    victim.mkdir()
    (victim / "precious").touch()
    (tree / "sub").mkdir(parents=True)
    (tree / "link").symlink_to(victim)
    (tree / "sub/link").symlink_to(victim, target_is_directory=True)
    (tree / "up").symlink_to("..")
    with opened(tmp_path) as directory:
        trees.remove_tree(directory, "tree", lambda: None)
        trees.remove_tree(directory, "tree", lambda: None)
    assert [path.name for path in tmp_path.rglob("*")] == ["victim", "precious"]


def test_removing_a_link_in_the_place_of_a_tree_is_refused(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/precious").touch()
    (tmp_path / "tree").symlink_to("victim")
    with opened(tmp_path) as directory, pytest.raises(OSError, match="Not a directory|symbolic"):
        trees.remove_tree(directory, "tree", lambda: None)
    assert (tmp_path / "victim/precious").exists()


def test_removing_can_be_stopped_anywhere_and_taken_up(tree: Path, tmp_path: Path) -> None:
    """Stopped after one step, then after two, and so on: each attempt goes on from what is left."""
    attempts = 0
    while tree.exists():
        attempts += 1
        steps = iter(range(attempts))
        with opened(tree.parent) as directory, suppress(StopIteration):
            trees.remove_tree(directory, "tree", lambda steps=steps: next(steps))
    assert attempts > 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("walk", ["copy", "watch"])
def test_a_directory_that_is_swapped_for_a_link_meanwhile_leads_nowhere(
    tmp_path: Path, walk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race that a tenant can run: ``d`` is a directory when it is listed, and a link out when it is opened."""
    tree, victim = tmp_path / "tree", tmp_path / "victim"
    victim.mkdir()
    (victim / "secret").write_text("secret", encoding="ascii")
    (tree / "d").mkdir(parents=True)
    real = trees._replaced

    def swapped(directory: int, name: str) -> int:
        if not (tree / name).is_symlink():
            (tree / name).rename(tmp_path / "aside")
            (tree / name).symlink_to(victim)
        return real(directory, name)

    monkeypatch.setattr(trees, "_replaced", swapped)
    with pytest.raises(Busy), opened(tree) as directory:
        if walk == "watch":
            trees.newest_change_ns(directory, lambda: None)
        else:
            copied(tree, tmp_path / "copy")
    assert not list(tmp_path.glob("copy/**/secret"))


def test_a_directory_that_is_moved_meanwhile_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way back up leads into another directory: what is in that one is none of the copy's business."""
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    (tree / "d").mkdir(parents=True)
    (tree / "e").mkdir()
    outside.mkdir()
    (outside / "secret").write_text("secret", encoding="ascii")
    real = trees._risen

    def moved(directory: int, parent: os.stat_result) -> int:
        for name in ("d", "e"):
            if (tree / name).exists():
                (tree / name).rename(outside / name)
        return real(directory, parent)

    monkeypatch.setattr(trees, "_risen", moved)
    with pytest.raises(Busy):
        copied(tree, tmp_path / "copy")
    assert not list(tmp_path.glob("copy/**/secret"))


@pytest.mark.needs_root
def test_a_file_that_is_swapped_for_a_device_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To open a device may reset the machine; a pipe would wait for ever."""
    tree = tmp_path / "tree"
    tree.mkdir()
    os.mkfifo(tree / "pipe")
    os.mknod(tree / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    opens: list[str] = []
    real = os.open

    def noted(name: str, flags: int, *rest: int, **more: int) -> int:
        if not flags & os.O_PATH:
            opens.append(str(name))
        return real(name, flags, *rest, **more)

    monkeypatch.setattr(trees.os, "open", noted)
    copied(tree, tmp_path / "copy")
    assert "pipe" not in opens
    assert not any("/proc/self/fd" in name for name in opens)


def test_a_change_is_seen(tree: Path) -> None:
    with opened(tree) as directory:
        before = trees.newest_change_ns(directory, lambda: None)
        (tree / "sub/deep/new").touch()
        assert trees.newest_change_ns(directory, lambda: None) > before or before == (tree / "sub").stat().st_ctime_ns
        newest = (tree / "sub/deep").stat().st_ctime_ns
        assert trees.newest_change_ns(directory, lambda: None) >= newest


@pytest.mark.needs_root
def test_behind_the_guard_no_link_is_followed_and_no_device_opened(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "up").symlink_to("..", target_is_directory=True)
    (tmp_path / "file").write_text("content", encoding="ascii")
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with opened(tmp_path) as directory:
        guard = guarded.guarded(directory)
        assert guard is not None
        try:
            for name in ("link", "up/file"):
                with pytest.raises(OSError, match="symbolic links"):
                    os.open(name, os.O_RDONLY, dir_fd=guard)
            with pytest.raises(PermissionError):
                os.open("null", os.O_RDONLY, dir_fd=guard)
            with os.fdopen(os.open("file", os.O_RDONLY, dir_fd=guard)) as file:
                assert file.read() == "content"
            os.mkdir("made", dir_fd=guard)
        finally:
            os.close(guard)
    assert (tmp_path / "made").is_dir()
