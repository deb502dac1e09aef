"""A volume's name is one volume of the driver, in whichever of its backends."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from fake_driver import Full, Small, capability, create_request, refuses

from csi_core._proto import csi_pb2 as pb
from csi_core.errors import CallError, StorageFailure, Unavailable
from csi_core.facade import Backend
from csi_core.hookspecs import hookimpl

IN_TWO = {"backend": "two"}
WAIT_S = 20


class Gated(Small):
    """Creates when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.let = threading.Event(), threading.Event()
        self.before = self.wait

    def wait(self, hook: str) -> None:
        if hook == "create_volume":
            self.entered.set()
            assert self.let.wait(WAIT_S)


class Asked(Small):
    """Counts how often it is asked for a name, and cannot answer where an error is given."""

    def __init__(self, error: CallError | None = None) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.error = error

    @hookimpl
    def find_volume(self, name):
        self.asked.append(name)
        if self.error:
            raise self.error
        return super().find_volume(name)


class WithoutFind(Small):
    """As a backend that has no ephemeral volumes may be."""

    find_volume = None


def test_a_name_of_another_backend_s_volume_is_taken(serve) -> None:
    client = serve(one=Small(), two=Small())
    first = client.create()
    with refuses("ALREADY_EXISTS", "it is in backend 'one'; asked for is 'two'"):
        client.create(parameters=IN_TWO)
    assert client.create() == first
    client.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=first.volume_id))
    assert client.create(parameters=IN_TWO).volume_id.startswith("two/")
    with refuses("ALREADY_EXISTS", "it is in backend 'two'; asked for is 'one'"):
        client.create()


def test_a_name_that_another_backend_is_making_is_busy(serve) -> None:
    slow = Gated()
    client = serve(one=slow, two=Small())
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.create)
        assert slow.entered.wait(WAIT_S)
        try:
            with refuses("ABORTED", "volume name pvc-1 is busy: CreateVolume"):
                client.create(parameters=IN_TWO)
            assert client.create("pvc-2", parameters=IN_TWO)
        finally:
            slow.let.set()
        assert first.result(WAIT_S).volume_id.startswith("one/")


def test_only_the_others_are_asked(serve) -> None:
    one, two = Asked(), Asked()
    client = serve(one=one, two=two)
    client.create()
    assert (one.asked, two.asked) == ([], ["pvc-1"])
    alone = Asked()
    serve(alone=alone).create()
    assert alone.asked == []


@pytest.mark.parametrize("error", [Unavailable("unplugged"), StorageFailure("broken")])
def test_a_backend_that_cannot_be_asked_keeps_nobody_waiting(serve, error: CallError) -> None:
    client = serve(one=Small(), two=Asked(error))
    assert client.create().volume_id.startswith("one/")


def test_a_backend_that_has_not_started_keeps_nobody_waiting(serve) -> None:
    client = serve(one=Small(), two=Small())
    client.runtime.router.all[1].stop()
    assert client.create().volume_id.startswith("one/")
    with refuses("UNAVAILABLE", "not ready yet"):
        client.create("pvc-2", parameters=IN_TWO)


def test_a_backend_that_finds_no_names_is_not_asked(serve) -> None:
    client = serve(one=Small(), two=WithoutFind())
    assert "find_volume" not in client.runtime.router.all[1].hooks
    assert client.create()


def test_an_inline_volume_holds_its_name_too(serve) -> None:
    """The id of an inline volume is the name that its backend knows it by."""
    slow = Full()
    client = serve(one=slow)
    entered, let = threading.Event(), threading.Event()

    def publish(backend: Backend, *_: object) -> None:
        entered.set()
        assert let.wait(WAIT_S)

    client.fake_node.publish_ephemeral = publish
    request = pb.NodePublishVolumeRequest(
        volume_id="csi-inline",
        target_path="/pod/volume",
        volume_capability=capability(),
        volume_context={"csi.storage.k8s.io/ephemeral": "true"},
    )
    with ThreadPoolExecutor(1) as pool:
        publishing = pool.submit(client.node.NodePublishVolume, request)
        assert entered.wait(WAIT_S)
        try:
            with pytest.raises(grpc.RpcError) as refused:
                client.controller.CreateVolume(create_request("csi-inline"))
            assert refused.value.code() is grpc.StatusCode.ABORTED
        finally:
            let.set()
        publishing.result(WAIT_S)
