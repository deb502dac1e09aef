"""What is done to a controller and between machines in the tests of mode export: its calls, mounts, and open files."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from hosts import Host

from csi_core._proto import csi_pb2 as pb
from csi_core.testing.harness import AccessMode, ServerProcess, create_request, mounted

__all__ = [
    "MIB",
    "ROX",
    "RWO",
    "RWX",
    "Process",
    "create",
    "delete",
    "mount",
    "mounted_at",
    "publish",
    "refused",
    "unpublish",
]

MIB = 1 << 20
RWO = mounted(mode=AccessMode.SINGLE_NODE_WRITER)
RWX = mounted(mode=AccessMode.MULTI_NODE_MULTI_WRITER)
ROX = mounted(mode=AccessMode.MULTI_NODE_READER_ONLY)
_NUMBERS = itertools.count()

HOLDER = """
import errno, fcntl, json, os, sys
opened = {}
def act(verb, path, *arguments):
    if verb == "open":
        opened[path] = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    elif verb == "lock":
        fcntl.lockf(opened[path], fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif verb == "write":
        os.pwrite(opened[path], arguments[0].encode() * arguments[2], arguments[1])
        os.fsync(opened[path])
    elif verb == "read":
        os.posix_fadvise(opened[path], 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(opened[path], 10, 1 << 20).decode()
    elif verb == "fresh":
        return open(path).read()
for line in sys.stdin:
    try:
        answer = act(*json.loads(line))
    except OSError as error:
        answer = errno.errorcode[error.errno]
    print(json.dumps(answer), flush=True)
"""


class Process:
    """A process of a pod that holds files open; every call answers None, what was read, or the name of an error."""

    def __init__(self, host: Host) -> None:
        self._process = host.start(sys.executable, "-c", HOLDER)

    def __call__(self, verb: str, path: str, *arguments: object) -> object:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([verb, path, *arguments]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def create(controller: ServerProcess, size_bytes: int = 64 * MIB, **more: object) -> pb.Volume:
    request = create_request(f"claim-{next(_NUMBERS)}", size_bytes, capability=RWX, **more)  # type: ignore[arg-type]
    return controller.controller.CreateVolume(request).volume


def publish(controller: ServerProcess, volume: pb.Volume, node_id: str, capability: pb.VolumeCapability = RWO) -> None:
    controller.controller.ControllerPublishVolume(
        pb.ControllerPublishVolumeRequest(
            volume_id=volume.volume_id,
            node_id=node_id,
            volume_capability=capability,
            volume_context=volume.volume_context,
        )
    )


def unpublish(controller: ServerProcess, volume: pb.Volume, node_id: str = "") -> None:
    controller.controller.ControllerUnpublishVolume(
        pb.ControllerUnpublishVolumeRequest(volume_id=volume.volume_id, node_id=node_id)
    )


def delete(controller: ServerProcess, *volumes: pb.Volume) -> None:
    for volume in volumes:
        unpublish(controller, volume)
        controller.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume.volume_id))


def mount(host: Host, volume: pb.Volume) -> str:
    path = f"/run/{volume.volume_id.rpartition('/')[2]}"
    context = volume.volume_context
    host.run("mkdir", "-p", path)
    host.run("mount", "-t", "nfs4", "-o", "vers=4.2,hard", f"{context['server']}:{context['share']}", path)
    return path


@contextmanager
def mounted_at(host: Host, volume: pb.Volume) -> Iterator[str]:
    path = mount(host, volume)
    try:
        yield path
    finally:
        host.run("umount", "-f", "-l", path)


@contextmanager
def refused(code: grpc.StatusCode, *words: str) -> Iterator[None]:
    with pytest.raises(grpc.RpcError) as caught:
        yield
    assert caught.value.code() is code, caught.value.details()
    for word in words:
        assert word in caught.value.details()
