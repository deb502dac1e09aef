"""Busy workers: Probe answers, waiting calls take turns, the others are told to come back."""

from __future__ import annotations

import threading
import time

import pytest
from fake_driver import Client, create_request, refuses
from test_calls import Stuck

from csi_core._proto import csi_pb2 as pb
from csi_core.deadline import call_deadline
from csi_core.errors import TimedOut, Unavailable
from csi_core.server.admission import Admission

PROBE_LIMIT_S = 0.05


def slow_probe_s(client: Client) -> float:
    client.identity.Probe(pb.ProbeRequest())
    spent = []
    for _ in range(50):
        started = time.perf_counter()
        assert client.identity.Probe(pb.ProbeRequest(), timeout=5).ready.value
        spent.append(time.perf_counter() - started)
    # Not the very slowest: other work on this machine must not decide.
    return sorted(spent)[44]


def test_probe_answers_while_every_worker_is_stuck_and_the_queue_is_full(serve) -> None:
    client = serve({"server": {"workers": 8, "queued": 8}})
    stuck = Stuck(client.backend, "create_volume")
    calls = [client.controller.CreateVolume.future(create_request("v" * n)) for n in range(1, 17)]
    stuck.wait(8)
    waiting(client, 8)
    assert slow_probe_s(client) < PROBE_LIMIT_S
    assert client.identity.GetPluginInfo(pb.GetPluginInfoRequest()).name
    assert client.identity.GetPluginCapabilities(pb.GetPluginCapabilitiesRequest()).capabilities
    assert client.controller.ControllerGetCapabilities(pb.ControllerGetCapabilitiesRequest()).capabilities
    assert client.node.NodeGetInfo(pb.NodeGetInfoRequest()).node_id
    started = time.perf_counter()
    with refuses("UNAVAILABLE", "all 8 workers are busy and 8 calls wait already"):
        client.controller.ListVolumes(pb.ListVolumesRequest())
    assert time.perf_counter() - started < 1
    assert len(client.backend.specs) == 0
    stuck.go.set()
    assert len({call.result().volume.volume_id for call in calls}) == 16
    assert client.server._admission.running == 0


def waiting(client: Client, calls: int) -> None:
    """Return once so many calls wait for their turn."""
    for _ in range(5000):
        if len(client.server._admission._waiting) == calls:
            return
        time.sleep(0.001)
    raise AssertionError(f"{len(client.server._admission._waiting)} calls wait, not {calls}")


def test_a_waiting_call_gives_up_at_its_deadline_without_having_begun(serve) -> None:
    client = serve({"server": {"workers": 1, "queued": 1}})
    stuck = Stuck(client.backend, "create_volume")
    first = client.controller.CreateVolume.future(create_request("first"))
    stuck.wait()
    with refuses("DEADLINE_EXCEEDED"):
        client.controller.CreateVolume(create_request("second"), timeout=0.2)
    waiting(client, 0)
    stuck.go.set()
    first.result()
    client.create("third")
    assert [spec.name for spec in client.backend.specs] == ["first", "third"]


def test_a_call_whose_client_has_gone_is_not_begun_when_its_turn_comes(serve) -> None:
    client = serve({"server": {"workers": 1, "queued": 1}})
    stuck = Stuck(client.backend, "create_volume")
    first = client.controller.CreateVolume.future(create_request("first"))
    stuck.wait()
    second = client.controller.CreateVolume.future(create_request("second"))
    waiting(client, 1)
    second.cancel()
    # The server hears of it on the same connection and so before the answer to what is asked next.
    client.identity.Probe(pb.ProbeRequest())
    time.sleep(0.1)
    stuck.go.set()
    first.result()
    client.create("third")
    assert [spec.name for spec in client.backend.specs] == ["first", "third"]


def occupy(gate: Admission, order: list[int], number: int, go: threading.Event) -> threading.Thread:
    def work() -> None:
        with gate:
            order.append(number)
            go.wait(10)

    before = len(gate._waiting) + gate.running
    thread = threading.Thread(target=work)
    thread.start()
    while len(gate._waiting) + gate.running == before:
        time.sleep(0.001)
    return thread


def test_turns_come_in_order() -> None:
    gate, order, go = Admission(workers=1, queued=10), [], threading.Event()
    threads = [occupy(gate, order, number, go) for number in range(6)]
    with pytest.raises(TimedOut, match="nothing was started"), call_deadline(0.05):
        gate.__enter__()
    go.set()
    for thread in threads:
        thread.join(10)
    assert order == list(range(6))
    assert gate.running == 0


def test_no_queue_at_all() -> None:
    gate, go = Admission(workers=1, queued=0), threading.Event()
    thread = occupy(gate, [], 0, go)
    with pytest.raises(Unavailable):
        gate.__enter__()
    go.set()
    thread.join(10)
    with gate:
        assert gate.running == 1


def test_giving_up_under_pressure_loses_no_slot() -> None:
    gate = Admission(workers=2, queued=50)
    most = []

    def work() -> None:
        for _ in range(40):
            try:
                with call_deadline(0.0005), gate:
                    most.append(gate.running)
                    time.sleep(0.0004)
            except TimedOut:
                continue

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert max(most) <= 2
    assert gate.running == 0
    assert not gate._waiting
