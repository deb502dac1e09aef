"""What the contract's tests cannot know of the simulator: its options, its failures, its repair."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.sim.plugin import SimBackend
from csi_core.contract import HOOKS
from csi_core.errors import ConfigError, DataLoss, FailedPrecondition, NoSpace, Unauthenticated, Unavailable
from csi_core.health import HealthKind
from csi_core.model import AccessMode, PublishRequest, VolumeCapability, VolumeMode
from csi_core.testing.contract import BackendCase

DIRECTORY = VolumeMode.FILESYSTEM


@pytest.fixture
def case(tmp_path: Path) -> Iterator[BackendCase]:
    options = {"directory": str(tmp_path), "nodes": ["node-b"], "maxVolumesPerNode": 2, "capacity": "1Gi"}
    with BackendCase(lambda: SimBackend(options)) as case:
        yield case


def test_every_hook_is_implemented(case: BackendCase) -> None:
    assert case.backend.hooks == HOOKS.keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"directry": "/x"}, "unknown option 'directry'; did you mean 'directory'?"),
        ({"capacity": "much"}, "'much' is not a size"),
        ({"reach": "nowhere"}, "reach"),
        ({"failures": {"create_volum": {}}}, "there is no hook 'create_volum'"),
        ({"latencySeconds": {"nap": 1}}, "there is no hook 'nap'"),
        ({"failures": {"create_volume": {"error": "Boom"}}}, "'Boom' is not an error that a hook raises"),
        ({"failures": {"create_volume": {"error": "ConfigError"}}}, "not an error that a hook raises"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        SimBackend(options)
    assert message in str(refused.value)


def test_fails_as_often_as_it_is_told() -> None:
    failures = {"create_volume": {"error": "NoSpace", "times": 2}}
    with BackendCase(lambda: SimBackend({"failures": failures})) as case:
        for _ in range(2):
            with pytest.raises(NoSpace):
                case.create("data", DIRECTORY)
        assert case.create("data", DIRECTORY).name == "data"


def test_takes_its_time() -> None:
    with BackendCase(lambda: SimBackend({"latencySeconds": {"get_volume": 0.05}})) as case:
        started = time.monotonic()
        case.backend.get_volume("volume")
        assert time.monotonic() - started >= 0.05


def test_start_may_fail_and_is_called_again() -> None:
    plugin = SimBackend({"failures": {"start": {"error": "Unavailable"}}})
    with pytest.raises(Unavailable), BackendCase(lambda: plugin):
        pass
    with BackendCase(lambda: plugin) as case:
        assert case.volumes() == []


def test_without_a_directory_nothing_stays() -> None:
    with BackendCase(lambda: SimBackend({})) as case:
        case.create("data", DIRECTORY)
        source = case.backend.attach_volume(case.attach_request(case.volumes()[0], DIRECTORY))
        case.backend.detach_volume(case.volumes()[0].handle)
        case.reopen()
        assert case.volumes() == []
        assert not source.path.exists()


def test_secret(tmp_path: Path) -> None:
    options = {"directory": str(tmp_path), "secretKey": "right"}
    with BackendCase(lambda: SimBackend(options), secrets={"secretKey": "right"}) as case:
        volume = case.create("data", DIRECTORY)
    with BackendCase(lambda: SimBackend(options), secrets={"secretKey": "wrong"}) as case:
        for call in (
            lambda: case.create("data", DIRECTORY),
            lambda: case.delete(volume),
            lambda: case.snapshot("snap", volume),
            lambda: case.backend.attach_volume(case.attach_request(volume, DIRECTORY)),
        ):
            with pytest.raises(Unauthenticated) as refused:
                call()
            assert "right" not in str(refused.value)
            assert "wrong" not in str(refused.value)


def test_a_node_has_room_for_so_many(case: BackendCase) -> None:
    volumes = [case.create(f"data-{number}", DIRECTORY) for number in range(3)]
    capability = VolumeCapability(DIRECTORY, AccessMode.MULTI_NODE_MULTI_WRITER)
    requests = [PublishRequest(volume.handle, "node-a", capability) for volume in volumes]
    for request in requests[:2]:
        case.backend.publish_volume(request)
    with pytest.raises(NoSpace, match="node-a has 2 volumes"):
        case.backend.publish_volume(requests[2])
    case.backend.publish_volume(PublishRequest(volumes[2].handle, "node-b", capability))
    case.backend.unpublish_volume(volumes[0].handle, "node-a", case.secrets)
    case.backend.publish_volume(requests[2])
    with pytest.raises(FailedPrecondition):
        case.delete(volumes[2])


def test_missing_content_is_told(case: BackendCase, tmp_path: Path) -> None:
    volume = case.create("data", DIRECTORY)
    shutil.rmtree(tmp_path / "content" / volume.handle)
    with pytest.raises(DataLoss):
        case.backend.attach_volume(case.attach_request(volume, DIRECTORY))
    [problem] = case.backend.volume_health(volume.handle)
    assert problem.kind is HealthKind.DATA_LOSS
    [finding] = case.backend.diagnose()
    assert (finding.subject, finding.repairable) == (volume.handle, False)
    assert case.backend.repair(finding) is False


def test_content_without_a_record_is_repaired(case: BackendCase, tmp_path: Path) -> None:
    kept, lost = (case.create(name, DIRECTORY) for name in ("kept", "lost"))
    orphan = tmp_path / "content" / lost.handle
    orphan.rename(tmp_path / "aside")
    case.delete(lost)
    (tmp_path / "aside").rename(orphan)
    [finding] = case.backend.diagnose()
    assert finding.repairable
    assert case.backend.repair(finding) is True
    assert not orphan.exists()
    assert (tmp_path / "content" / kept.handle).exists()
    assert list(case.backend.diagnose()) == []


def test_a_repair_that_is_no_longer_right_is_not_made(case: BackendCase, tmp_path: Path) -> None:
    handle = case.create("data", DIRECTORY).handle
    case.delete(case.volumes()[0])
    (tmp_path / "content" / handle).mkdir()
    [finding] = case.backend.diagnose()
    case.create("data", DIRECTORY)
    assert case.backend.repair(finding) is False
    assert list(case.backend.diagnose()) == []


def test_records_that_cannot_be_read(case: BackendCase, tmp_path: Path) -> None:
    (tmp_path / "records.json").write_text("{}}")
    with pytest.raises(DataLoss, match=r"records\.json"):
        case.reopen()
    (tmp_path / "records.json").write_text("{}")
    case.reopen()


def test_health_when_nearly_full(case: BackendCase) -> None:
    assert case.backend.storage_health() == ()
    case.create("data", DIRECTORY, 900 << 20)
    [problem] = case.backend.storage_health()
    assert problem.reason == "NearlyFull"
