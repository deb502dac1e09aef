"""The click command ``csi-core demo``."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import grpc

from csi_core import log
from csi_core._proto import csi_pb2 as pb
from csi_core.cli.demo.client import Client, MismatchError
from csi_core.cli.demo.cluster import Cluster
from csi_core.cli.demo.place import Place, make_place, missing_privilege
from csi_core.cli.demo.report import Report
from csi_core.cli.demo.samples import PoolWatch
from csi_core.cli.demo.setting import LOOP, SIM, Setting
from csi_core.cli.demo.walk import Walk
from csi_core.errors import CsiCoreError
from csi_core.testing.harness import ServerProcess, ServerStoppedError

__all__ = ["demo"]

LOG_LINES = 12
SETTLE_S = 5.0
"""How long what is deleted may take to be gone from the disk: freeing space happens after the answer."""


@click.command()
@click.option("--backend", type=click.Choice(["loop", "sim"]), help="What to walk; loop as root, sim otherwise.")
@click.option(
    "--pool-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Make the pool in a new directory below this one, instead of on an XFS image of the demo's own.",
)
@click.option("--keep", is_flag=True, help="Leave the directories, with the server's log, for a look.")
def demo(backend: str | None, pool_dir: Path | None, keep: bool) -> None:
    """Walk real volumes through their life, with a client in the place of Kubernetes."""
    missing = missing_privilege()
    if missing and backend == "loop":
        raise click.UsageError(f"loop devices and mounts need root ({missing}): use --backend sim")
    log.configure("console", "warning")
    report = Report()
    setting = SIM if missing or backend == "sim" else LOOP
    if missing:
        report.say(f"No loop devices and no mounts here ({missing}): this is the same walk on the simulator.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        failures = _run(setting, report, pool_dir, keep)
    except (CsiCoreError, OSError) as error:
        failures = [str(error)]
    except KeyboardInterrupt:
        failures = ["interrupted"]
    for failure in failures:
        report.failure(failure)
    report.closing("The demo failed." if failures else "Everything matched and nothing is left behind.", not failures)
    sys.exit(1 if failures else 0)


def _run(setting: Setting, report: Report, pool_dir: Path | None, keep: bool) -> list[str]:
    """Make the place, run the server in it, walk; answer what went wrong."""
    with make_place(pool_dir, own_filesystem=setting.real_mounts, keep=keep) as place:
        report.say(f"The pool is {place.about}. Everything else is in {place.root}.")
        try:
            with ServerProcess(setting.config(place), place.root) as server:
                failures = _walk(setting, report, place, server.endpoint)
                if failures:
                    report.say(
                        "\n".join(["The end of the server's log:", *server.log_tail().splitlines()[-LOG_LINES:]])
                    )
        except ServerStoppedError as error:
            failures = [str(error)]
        left = place.left()
        if not left and not keep:
            report.check("no mount, no loop device and no file with data is left")
        place.sweep()
    if not keep and place.root.exists():
        left.append(f"directory {place.root}")
    return failures + [f"left behind: {what}" for what in left]


def _walk(setting: Setting, report: Report, place: Place, endpoint: str) -> list[str]:
    """Walk all shapes and show the tables; answer what went wrong. Whatever happened, all volumes are taken down."""
    client = Client(endpoint, report.call)
    cluster: Cluster | None = None
    failures: list[str] = []
    try:
        report.title("The driver")
        cluster = Cluster(client, place.kubelet)
        walk = Walk(client, cluster, report, real_mounts=setting.real_mounts)
        with PoolWatch(_available_bytes(setting, endpoint), place.pool) as watch:
            for shape in setting.shapes:
                walk.life_of(shape)
            walk.life_of_group(setting.group)
            walk.exclusive(setting.shapes[0])
            walk.inline(setting.shapes[0])
            report.title("The end")
            _check_nothing_listed(cluster, report)
            _wait_until(lambda: not place.left())
        report.call_table()
        report.pool_chart(watch.samples)
    except KeyboardInterrupt:
        failures.append("interrupted")
    except (MismatchError, OSError, grpc.RpcError) as error:
        failures.append(str(error))
    with _uninterrupted():
        if failures and cluster:
            report.say("Taking down what is still there.")
            failures += cluster.release()
            _wait_until(lambda: not place.left())
        client.close()
    return failures


def _check_nothing_listed(cluster: Cluster, report: Report) -> None:
    remaining = cluster.remaining()
    if remaining:
        raise MismatchError(f"still listed after they were deleted: {', '.join(remaining)}")
    report.check("the driver lists no volume and no snapshot any more")


def _available_bytes(setting: Setting, endpoint: str) -> Callable[[], int]:
    """GetCapacity on a connection of its own, neither shown nor counted."""
    client = Client(endpoint, lambda _: None)
    request = pb.GetCapacityRequest(parameters=setting.capacity_parameters)
    return lambda: client.controller.GetCapacity(request, timeout=2).available_capacity


def _wait_until(done: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + SETTLE_S
    while not done() and time.monotonic() < give_up_at:
        time.sleep(0.05)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Taking down is not interrupted by a second Ctrl-C."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
