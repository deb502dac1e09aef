"""The node side of NFS volumes, on exports that somebody else has made: mounts, options, dead and stale servers."""

from __future__ import annotations

import errno
import hashlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from hosts import Lab, NfsServer, until
from nfs_kubelet import ROX, Claim, Kubelet, refused

from csi_core._proto import csi_pb2 as pb

pytestmark = pytest.mark.needs_kernel("nfs")

Code = grpc.StatusCode
Record = Callable[[str, object], None]
OTHERS = 20
PROBE_S = 0.05
PATIENCE_S = 5.0
"""Of the kubelet for a mount, here: the driver's own is four times that, and this serves as well to look on."""
LAZILY = "unmounting lazily: the server does not answer"


@pytest.fixture(scope="module")
def exported(lab: Lab) -> Lab:
    """Both servers export /srv/data to everybody."""
    for server in (lab.s, lab.t):
        server.export("/srv/data")
    return lab


@pytest.fixture(scope="module")
def drivers(exported: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kubelet, Kubelet]]:
    """A driver on each client."""
    directory = tmp_path_factory.mktemp("drivers")
    with Kubelet(exported.a, directory) as a, Kubelet(exported.b, directory) as b:
        yield a, b


@pytest.fixture
def kubelets(
    drivers: tuple[Kubelet, Kubelet], exported: Lab, request: pytest.FixtureRequest
) -> Iterator[tuple[Kubelet, Kubelet]]:
    """The drivers; nothing may stay mounted. What a failing test leaves behind is no failure of the next one."""
    failed = request.session.testsfailed
    yield drivers
    left = {kubelet.host.name: mounts for kubelet in drivers if (mounts := kubelet.host.mounts())}
    passed = request.session.testsfailed == failed
    if left or not passed:
        for server in (exported.s, exported.t):
            server.serve_again()
        for kubelet in drivers:
            kubelet.host.tidy()
            kubelet.driver.kill()
            kubelet.driver.restart()
    assert not (left and passed), f"still mounted: {left}"


@pytest.fixture
def kubelet(kubelets: tuple[Kubelet, Kubelet]) -> Kubelet:
    """The one on client a."""
    return kubelets[0]


def claim_on(server: NfsServer, name: str, **options: object) -> Claim:
    """A static volume: a directory that the test makes."""
    server.path(f"/srv/data/{name}").mkdir(exist_ok=True)
    context = {"server": server.address, "share": f"/srv/data/{name}"}
    return Claim(f"nfs/static.{server.name}-{name}", context, **options)  # type: ignore[arg-type]


def test_what_one_node_writes_the_other_reads(kubelets: tuple[Kubelet, Kubelet], lab: Lab) -> None:
    a, b = kubelets
    claim = claim_on(lab.s, "shared")
    (a.run_pod(claim) / "file").write_text("from a", encoding="utf-8")
    assert (b.run_pod(claim) / "file").read_text(encoding="utf-8") == "from a"
    a.stop_pod(claim)
    b.stop_pod(claim)
    assert lab.s.path("/srv/data/shared/file").read_text(encoding="utf-8") == "from a"


def test_volumes_of_one_server_share_a_connection_and_nothing_else(kubelet: Kubelet, lab: Lab) -> None:
    claims = [claim_on(lab.s, f"several-{number}") for number in range(4)]
    for number, claim in enumerate(claims):
        (kubelet.run_pod(claim) / "number").write_text(str(number), encoding="utf-8")
    established = lab.a.run("ss", "-Htn", "state", "established").splitlines()
    connections = [line for line in established if f"{lab.s.address}:2049" in line]
    assert len(connections) == 1, connections
    kubelet.stop_pod(claims[0])
    assert [(kubelet.files(claim) / "number").read_text(encoding="utf-8") for claim in claims[1:]] == ["1", "2", "3"]
    for claim in claims[1:]:
        kubelet.stop_pod(claim)


def test_two_volumes_of_one_export_let_go_of_it_one_by_one(kubelet: Kubelet, lab: Lab) -> None:
    """The kernel shows the mounts of both as the same; neither keeps the other staged."""
    lab.a.run("mount", "--make-rshared", "/")  # as the kubelet's directory has to be: binds are told by their peers
    first = claim_on(lab.s, "same")
    second = replace(first, volume_id="nfs/static.second")
    (kubelet.run_pod(first) / "file").write_text("of both", encoding="utf-8")
    assert (kubelet.run_pod(second) / "file").read_text(encoding="utf-8") == "of both"
    kubelet.stop_pod(first)
    assert (kubelet.files(second) / "file").read_text(encoding="utf-8") == "of both"
    kubelet.stop_pod(second)
    assert lab.a.mounts() == []


def test_calls_can_be_repeated_in_another_driver_too(kubelet: Kubelet, lab: Lab) -> None:
    claim = claim_on(lab.s, "again")
    for _ in range(2):
        kubelet.run_pod(claim)
        kubelet.run_pod(claim)
        assert len(lab.a.mounts()) == 2, "the staging path and the pod's"
        kubelet.driver.kill()
        kubelet.driver.restart()
    for _ in range(2):
        kubelet.stop_pod(claim)


def test_read_only_is_kept(kubelet: Kubelet, lab: Lab) -> None:
    for_all, for_one = claim_on(lab.s, "rox", mode=ROX), claim_on(lab.s, "rwx")
    kubelet.run_pod(for_all)
    kubelet.stage(for_one)
    kubelet.publish(for_one)
    kubelet.publish(for_one, "reader", read_only=True)
    for files in (kubelet.files(for_all), kubelet.files(for_one, "reader")):
        with pytest.raises(OSError, match="Read-only") as caught:
            (files / "file").touch()
        assert caught.value.errno == errno.EROFS
    (kubelet.files(for_one) / "file").touch()
    kubelet.stop_pod(for_all)
    kubelet.unpublish(for_one, "reader")
    kubelet.stop_pod(for_one)


def test_options_reach_the_kernel_and_others_are_refused(kubelet: Kubelet, lab: Lab) -> None:
    flags = ("nfsvers=4.1", "soft", "timeo=50,retrans=1", "rsize=65536,wsize=65536", "noexec", "lookupcache=none")
    claim = claim_on(lab.s, "options", mount_flags=flags)
    kubelet.stage(claim)
    (line,) = (line for line in lab.a.run("cat", "/proc/mounts").splitlines() if "options/globalmount" in line)
    found = set(line.split(" ")[3].split(","))
    assert {"vers=4.1", "soft", "timeo=50", "retrans=1", "rsize=65536", "wsize=65536", "noexec"} <= found
    assert "lookupcache=none" in found
    with refused(Code.ALREADY_EXISTS, "mounted with NFS 4.1, and 4.2 is asked for"):
        kubelet.stage(claim_on(lab.s, "options", mount_flags=("noexec",)))
    kubelet.unstage(claim)
    with refused(Code.INVALID_ARGUMENT, "'addr=***' is not allowed for a network share"):
        kubelet.stage(claim_on(lab.s, "options", mount_flags=("addr=10.0.0.1",)))


def test_what_is_not_exported_is_said(kubelet: Kubelet, lab: Lab) -> None:
    missing = Claim("nfs/static.missing", {"server": lab.s.address, "share": "/srv/data/missing"})
    with refused(Code.FAILED_PRECONDITION, "exports no such directory"):
        kubelet.stage(missing)


def test_a_stale_share_is_mounted_anew_by_the_next_stage_or_publish(kubelet: Kubelet, lab: Lab) -> None:
    claim = claim_on(lab.s, "stale")
    kubelet.run_pod(claim, "old")
    for step in (kubelet.stage, lambda claim: kubelet.publish(claim, "new")):
        (lab.s.path("/srv/data/stale")).rename(lab.s.path(f"/srv/data/was-{time.monotonic_ns()}"))
        lab.s.run("sh", "-c", "rm -r /srv/data/was-*; mkdir /srv/data/stale; touch /srv/data/stale/fresh")
        until(lambda: is_stale(kubelet.files(claim, "old")), "the old handle is stale")
        step(claim)
        assert (lab.a.path(kubelet.staging(claim)) / "fresh").exists()
    assert (kubelet.files(claim, "new") / "fresh").exists()
    kubelet.unpublish(claim, "old")
    kubelet.stop_pod(claim, "new")


def is_stale(path: Path) -> bool:
    """Whether the server has forgotten it."""
    try:
        next(path.iterdir(), None)
    except OSError as error:
        return error.errno == errno.ESTALE
    return False


WRITER = """
import hashlib, os, sys
directory, number = sys.argv[1], 0
while True:
    content = os.urandom(1 << 20)
    with open(f"{directory}/{number}", "wb") as file:
        file.write(content)
        os.fsync(file.fileno())
    print(hashlib.sha256(content).hexdigest(), flush=True)
    number += 1
"""


def test_a_server_that_restarts_under_load_loses_nothing(kubelet: Kubelet, lab: Lab, tmp_path: Path) -> None:
    claim = claim_on(lab.s, "load")
    files = kubelet.run_pod(claim)
    log = tmp_path / "written"
    # A process of its own: whoever spawns one while it has such a file open waits for the server too.
    writer = lab.a.start(sys.executable, "-c", WRITER, str(kubelet.target(claim)), log=log)

    def written() -> list[str]:
        return log.read_text(encoding="ascii").split()

    until(lambda: len(written()) > 2, "the first writes")
    lab.s.stop_nfsd()
    before = len(written())
    time.sleep(1)
    assert len(written()) <= before + 1, "nobody can write while the server is away"
    lab.s.start_nfsd()
    until(lambda: len(written()) > before + 3, "writes after the restart", timeout_s=60)
    writer.kill()
    writer.wait()
    kubelet.stop_pod(claim)
    kubelet.run_pod(claim)
    for number, checksum in enumerate(written()):
        assert hashlib.sha256((files / str(number)).read_bytes()).hexdigest() == checksum, number
    kubelet.stop_pod(claim)


def test_a_dead_server_hinders_no_other_volume(kubelet: Kubelet, lab: Lab, record_property: Record) -> None:
    dead, dead_too = claim_on(lab.s, "dead"), claim_on(lab.s, "dead-too")
    others = [claim_on(lab.t, f"other-{number}") for number in range(OTHERS)]
    kubelet.run_pod(dead)
    pod = lab.a.start("sh", "-c", f"cd {kubelet.target(dead)} && echo here && exec sleep 600")
    assert pod.stdout is not None and pod.stdout.readline()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(kubelet.run_pod, others))
    lab.s.cut_off()
    try:
        with ThreadPoolExecutor(40) as pool:
            calls = [lambda: kubelet.stats(dead), lambda: kubelet.stage(dead_too, PATIENCE_S)]
            stuck = [pool.submit(call) for call in calls * 12]
            time.sleep(0.5)
            probes, working = [], []
            while not all(done.done() for done in stuck):
                probes.append(waited(lambda: kubelet.driver.identity.Probe(pb.ProbeRequest(), timeout=5)))
                claim = others[len(working) % OTHERS]
                working.append(timed(lambda claim=claim: use(kubelet, claim)))
            codes = {done.exception().code() for done in stuck}  # type: ignore[union-attr]
        assert codes <= {Code.UNAVAILABLE, Code.ABORTED, Code.DEADLINE_EXCEEDED}, "all may be repeated"
        assert len(working) >= OTHERS, "every volume of the living server was used meanwhile"
        late = [probe for probe in probes if min(probe) >= PROBE_S]
        assert not late, f"of {len(probes)}, as seconds and CPUs' idle seconds: {late}"
        durations_s = [duration_s for duration_s, _ in probes]
        assert statistics.median(durations_s) < PROBE_S
        median_ms, worst_ms = statistics.median(durations_s) * 1000, max(durations_s) * 1000
        record_property(
            "detail",
            f"dead server: Probe {median_ms:.0f} ms (worst {worst_ms:.0f} ms), "
            f"{len(working)} uses of other volumes, worst {max(working) * 1000:.0f} ms",
        )
        one_more = claim_on(lab.t, "one-more")
        kubelet.run_pod(one_more)
        kubelet.stop_pod(one_more)
        restart_s = timed(lambda: (kubelet.driver.kill(), kubelet.driver.restart()))
        assert restart_s < 20, "a start looks at no dead mount"
        kubelet.stats(others[0])
        kubelet.unpublish(dead)  # busy, as the pod is in it, and nobody could ever end that
        kubelet.unstage(dead)
        assert kubelet.target(dead) not in map(Path, lab.a.mounts())
        said = [line for line in kubelet.driver.log_text().splitlines() if LAZILY in line]
        assert any(str(kubelet.target(dead)) in line for line in said), kubelet.driver.log_text()
    finally:
        lab.s.reconnect()
    for claim in others:
        kubelet.stop_pod(claim)
    kubelet.run_pod(dead)
    kubelet.stop_pod(dead)


def use(kubelet: Kubelet, claim: Claim) -> None:
    """What a pod and the kubelet do all day."""
    (kubelet.files(claim) / "file").write_bytes(os.urandom(4096))
    assert kubelet.stats(claim).usage[0].total


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begun_at = time.monotonic()
    call()
    return time.monotonic() - begun_at


def waited(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds that a call takes, and seconds for which a CPU of this machine had nothing to do meanwhile.

    A call that waits for a server leaves the CPU idle. One that has to share a single busy CPU takes long as well, and
    waits for nobody.
    """
    before_s = idle_s()
    duration_s = timed(call)
    return duration_s, idle_s() - before_s


def idle_s() -> float:
    """Of all CPUs since boot, waiting for disks and servers included."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")
