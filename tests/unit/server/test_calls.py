"""What surrounds every call: statuses, logs without secrets, metrics, deadlines, locks."""

from __future__ import annotations

import threading
import time

import grpc
import pytest
import structlog
from fake_driver import Client, Full, capability, create_request, refuses

from csi_core import deadline, errors
from csi_core._proto import csi_pb2 as pb
from csi_core.server.redaction import redacted
from csi_core.server.status import failure_of

CODES = {
    errors.InvalidArgument: "INVALID_ARGUMENT",
    errors.NotFound: "NOT_FOUND",
    errors.AlreadyExists: "ALREADY_EXISTS",
    errors.FailedPrecondition: "FAILED_PRECONDITION",
    errors.BackendNotLoaded: "FAILED_PRECONDITION",
    errors.OutOfRange: "OUT_OF_RANGE",
    errors.NoSpace: "RESOURCE_EXHAUSTED",
    errors.Busy: "ABORTED",
    errors.TimedOut: "DEADLINE_EXCEEDED",
    errors.Unavailable: "UNAVAILABLE",
    errors.PermissionDenied: "PERMISSION_DENIED",
    errors.Unauthenticated: "UNAUTHENTICATED",
    errors.Unsupported: "UNIMPLEMENTED",
    errors.DataLoss: "DATA_LOSS",
    errors.StorageFailure: "INTERNAL",
    TimeoutError: "DEADLINE_EXCEEDED",
    ConnectionResetError: "UNAVAILABLE",
}


def all_below(error: type[BaseException]) -> set[type[BaseException]]:
    return {error} | {below for child in error.__subclasses__() for below in all_below(child)}


def test_every_error_of_a_call_has_a_status() -> None:
    ours = {e for e in all_below(errors.CallError) if e.__module__ == "csi_core.errors"} - {errors.CallError}
    assert ours - CODES.keys() == {errors.CommandFailed}
    for error in ours - {errors.CommandFailed}:
        assert failure_of(error("why"), "r").expected


@pytest.mark.parametrize("error", CODES, ids=lambda error: error.__name__)
def test_an_error_and_its_subclasses_have_one_status(client: Client, error: type[Exception]) -> None:
    class Own(error):
        """A backend's own kind."""

    for kind in (error, Own):

        def fail(_hook: str, kind: type[Exception] = kind) -> None:
            raise kind("the pool is on fire")

        client.backend.before = fail
        with refuses(CODES[error], "the pool is on fire") as said:
            client.create()
        assert "grpc-status-details-bin" not in dict(said.trailing)


def test_final_errors_are_those_that_the_sidecars_take_for_final() -> None:
    retried = {"ABORTED", "DEADLINE_EXCEEDED", "UNAVAILABLE"}
    for error, code in CODES.items():
        if issubclass(error, errors.CallError):
            assert error.final == (code not in retried)


def test_a_failed_command_tells_what_it_said(client: Client) -> None:
    def fail(_hook: str) -> None:
        raise errors.CommandFailed(["mkfs.ext4", "/dev/x"], 1, "no such device\n")

    client.backend.before = fail
    with refuses("INTERNAL", "mkfs.ext4 exited with 1: no such device"):
        client.create()


def test_an_error_nobody_meant_is_told_in_the_log_only(client: Client) -> None:
    def fail(_hook: str) -> None:
        raise RuntimeError("password=hunter2")

    client.backend.before = fail
    with structlog.testing.capture_logs() as log, refuses("INTERNAL", "internal error") as said:
        client.create()
    assert "hunter2" not in said.details
    (line,) = [line for line in log if line["event"] == "failed"]
    assert line["log_level"] == "error"
    assert "RuntimeError: password=hunter2" in line["exception"]


def test_the_answer_to_an_unmeant_error_leads_to_its_log_line(client: Client) -> None:
    def fail(_hook: str) -> None:
        raise RuntimeError("what")

    client.backend.before = fail
    seen: list[dict[str, object]] = []
    # In place: loggers that are bound keep the list.
    capture, processors = structlog.testing.LogCapture(), structlog.get_config()["processors"]
    usual = processors.copy()
    processors[:] = [structlog.contextvars.merge_contextvars, capture]
    try:
        with refuses("INTERNAL") as said:
            client.create()
        seen = [line for line in capture.entries if line["event"] == "failed"]
    finally:
        processors[:] = usual
    assert seen[0]["method"] == "CreateVolume"
    assert seen[0]["name"] == "pvc-1"
    assert said.details.endswith(f"under request_id {seen[0]['request_id']}")


@pytest.mark.parametrize("letter", ["x", "%", "\u00e4", "\U0001f600", "\udcff"])
def test_however_long_a_message_is_the_code_arrives(client: Client, letter: str) -> None:
    """gRPC replaces a status whose message is too long by RESOURCE_EXHAUSTED, which would make this one final."""

    def fail(_hook: str) -> None:
        raise errors.TimedOut("lvs said " + letter * 20_000)

    client.backend.before = fail
    with structlog.testing.capture_logs() as log, refuses("DEADLINE_EXCEEDED", "lvs said ") as said:
        client.create()
    assert "the driver's log has all of it under request_id " in said.details
    assert said.details.count(letter if letter.isprintable() else "?") > 300
    (line,) = [line for line in log if line["event"] == "refused"]
    assert line["reason"] == "lvs said " + letter * 20_000


def test_a_message_with_a_path_that_is_no_text_is_told(client: Client) -> None:
    def fail(_hook: str) -> None:
        raise errors.Busy("/images/\udcff is in use")

    client.backend.before = fail
    with refuses("ABORTED", "/images/? is in use"):
        client.create()


def test_a_method_that_does_not_exist(client: Client) -> None:
    call = client.channel.unary_unary("/csi.v1.Controller/MakeCoffee")
    with refuses("UNIMPLEMENTED"):
        call(b"")


# -- secrets --------------------------------------------------------------------------------------


def test_the_traceback_of_an_unmeant_error_shows_no_secret_to_people(client: Client) -> None:
    """structlog's renderer for people prints the local variables of every frame, where it makes the traceback."""

    def fail(_hook: str) -> None:
        raise RuntimeError("what")

    client.backend.before = fail
    lines: list[str] = []

    def render(logger: object, method: str, event: dict[str, object]) -> None:
        lines.append(str(structlog.dev.ConsoleRenderer(colors=False)(logger, method, event)))
        raise structlog.DropEvent

    processors = structlog.get_config()["processors"]
    usual = processors.copy()
    processors[:] = [render]
    try:
        with refuses("INTERNAL"):
            client.create(secrets={"password": "hunter2"})
    finally:
        processors[:] = usual
    (line,) = [line for line in lines if "failed" in line]
    assert "RuntimeError: what" in line
    assert "hunter2" not in line


def test_every_secret_field_of_every_message_is_hidden() -> None:
    secret = {"key": "hunter2"}
    found = 0
    for name, descriptor in pb.DESCRIPTOR.message_types_by_name.items():
        for field in descriptor.fields:
            if field.GetOptions().Extensions[pb.csi_secret]:
                found += 1
                shown = redacted(getattr(pb, name)(**{field.name: secret}))
                assert shown == {field.name: {"key": "***"}}
    assert found == 22


def test_mount_flags_are_hidden_wherever_they_lie() -> None:
    request = create_request(volume_capabilities=[capability(flags=("password=hunter2",))])
    shown = redacted(request)
    assert "hunter2" not in str(shown)
    assert shown["volume_capabilities"][0]["mount"] == {"fs_type": "ext4", "mount_flags": "***"}
    assert shown["volume_capabilities"][0]["access_mode"] == {"mode": "SINGLE_NODE_WRITER"}
    assert shown["name"] == "pvc-1"


def test_what_is_not_secret_is_shown() -> None:
    request = pb.NodePublishVolumeRequest(volume_id="v", volume_context={"a": "b"}, readonly=True)
    assert redacted(request) == {"volume_id": "v", "volume_context": {"a": "b"}, "readonly": True}


@pytest.mark.parametrize("level", ["debug", "info"])
def test_no_log_holds_a_secret(serve, capsys: pytest.CaptureFixture[str], level: str) -> None:
    client = serve({"log": {"level": level}})
    secrets = {"password": "hunter2"}
    flags = [capability(flags=("password=hunter3",))]
    volume = client.create(secrets=secrets, volume_capabilities=flags)
    use = {"volume_id": volume.volume_id, "staging_target_path": "/s", "volume_capability": flags[0]}
    client.node.NodeStageVolume(pb.NodeStageVolumeRequest(**use, secrets=secrets))
    with refuses("INVALID_ARGUMENT") as said:
        client.create("other", secrets={"passwort": "hunter4"})
    client.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume.volume_id, secrets=secrets))
    written = "".join(capsys.readouterr()) + said.details
    assert "CreateVolume" in written
    assert ("***" in written) == (level == "debug")
    assert "hunter" not in written


# -- metrics --------------------------------------------------------------------------------------


def test_calls_are_counted(client: Client) -> None:
    def count(method: str, code: str) -> float | None:
        labels = {"method": method, "code": code}
        return client.metrics.get_sample_value("csi_core_call_duration_seconds_count", labels)

    client.create()
    client.create()
    with refuses("INVALID_ARGUMENT"):
        client.create("")
    list(client.controller.ListVolumes(pb.ListVolumesRequest()).entries)
    with refuses("NOT_FOUND"):
        list(client.metadata.GetMetadataAllocated(pb.GetMetadataAllocatedRequest(snapshot_id="fake/x")))
    assert count("CreateVolume", "OK") == 2
    assert count("CreateVolume", "INVALID_ARGUMENT") == 1
    assert count("ListVolumes", "OK") == 1
    assert count("GetMetadataAllocated", "NOT_FOUND") == 1
    assert client.metrics.get_sample_value("csi_core_calls_in_flight") == 0


# -- deadlines and locks --------------------------------------------------------------------------


def test_the_backend_knows_the_client_s_deadline(client: Client) -> None:
    seen: list[float] = []
    client.backend.before = lambda _hook: seen.append(deadline.remaining_s(1000))
    client.controller.CreateVolume(create_request(), timeout=5)
    client.controller.CreateVolume(create_request())
    # A little above 5 too: gRPC carries deadlines over between two clocks.
    assert 4 < seen[0] < 5.5
    assert seen[1] == 1000


class Stuck:
    """Holds calls of one hook until they are let go."""

    def __init__(self, backend: Full, hook: str) -> None:
        self.entered, self.go = threading.Semaphore(0), threading.Event()
        self._hook = hook
        backend.before = self

    def __call__(self, hook: str) -> None:
        if hook == self._hook:
            self.entered.release()
            assert self.go.wait(20)

    def wait(self, calls: int = 1) -> None:
        for _ in range(calls):
            assert self.entered.acquire(timeout=10)


def test_one_creation_a_name(client: Client) -> None:
    stuck = Stuck(client.backend, "create_volume")
    first = client.controller.CreateVolume.future(create_request("pvc-1"))
    stuck.wait()
    with refuses("ABORTED", "volume name pvc-1 is busy: CreateVolume has held it for"):
        client.create("pvc-1")
    stuck.go.set()
    assert first.result() == client.controller.CreateVolume(create_request("pvc-1"))


def test_a_call_that_outlives_its_client_keeps_its_lock(client: Client) -> None:
    volume_id = client.create().volume_id
    stuck = Stuck(client.backend, "delete_volume")
    request = pb.DeleteVolumeRequest(volume_id=volume_id)
    with refuses("DEADLINE_EXCEEDED"):
        client.controller.DeleteVolume(request, timeout=0.2)
    for call in (
        lambda: client.controller.DeleteVolume(request),
        lambda: client.controller.CreateSnapshot(pb.CreateSnapshotRequest(name="s", source_volume_id=volume_id)),
        lambda: client.group.CreateVolumeGroupSnapshot(
            pb.CreateVolumeGroupSnapshotRequest(name="g", source_volume_ids=[volume_id])
        ),
        lambda: client.node.NodeExpandVolume(pb.NodeExpandVolumeRequest(volume_id=volume_id, volume_path="/t")),
        lambda: client.node.NodeUnpublishVolume(pb.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path="/t")),
    ):
        with refuses("ABORTED", f"volume {volume_id} is busy: DeleteVolume has held it"):
            call()
    stuck.go.set()
    for _ in range(200):
        try:
            client.controller.DeleteVolume(request)
            break
        except grpc.RpcError:
            time.sleep(0.01)
    assert client.server._driver.locks.held() == ()


def test_many_clones_of_one_volume_at_once(client: Client) -> None:
    source_id = client.create("source").volume_id
    stuck = Stuck(client.backend, "create_volume")
    source = pb.VolumeContentSource(volume=pb.VolumeContentSource.VolumeSource(volume_id=source_id))
    clones = [
        client.controller.CreateVolume.future(create_request("c" * n, volume_content_source=source)) for n in (1, 2, 3)
    ]
    stuck.wait(3)
    with refuses("ABORTED", "CreateVolume has held it"):
        client.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=source_id))
    stuck.go.set()
    assert len({clone.result().volume.volume_id for clone in clones}) == 3
