"""The door to other programs, with real ones."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from csi_core import deadline
from csi_core.errors import CommandFailed, StorageFailure, TimedOut
from csi_core.run import run, spawned


def read(*argv, **options):
    return run(argv, **{"timeout_s": 10.0, "mutates": False, **options})


def python(code, **options):
    return read(sys.executable, "-c", code, **options)


def test_output_and_duration():
    done = python("import sys; print('out'); print('err', file=sys.stderr)")
    assert (done.stdout, done.stderr, done.exit_code) == ("out\n", "err\n", 0)
    assert 0 < done.duration_s < 10


def test_no_shell():
    assert read("echo", "$HOME; `id` | *").stdout == "$HOME; `id` | *\n"


def test_a_name_becomes_an_absolute_path_also_outside_of_the_users_path(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert "mke2fs" in read("mkfs.ext4", "-V").stderr


def test_environment():
    done = python("import os; print(os.environ['LC_ALL'], os.environ['EXTRA'])", env={"EXTRA": "x", "LC_ALL": "de"})
    assert done.stdout == "C x\n"


def test_standard_input_is_empty_unless_given():
    assert python("import sys; print(repr(sys.stdin.read()))").stdout == "''\n"
    assert python("import sys; print(len(sys.stdin.read()))", stdin="s" * 1_000_000).stdout == "1000000\n"


def test_much_output_on_both_pipes_at_once():
    """A reader of one pipe after the other would wait for ever."""
    code = "import sys\nfor i in range(2000): sys.stdout.write('o' * 1000); sys.stderr.write('e' * 1000)"
    done = python(code)
    assert (len(done.stdout), len(done.stderr)) == (2_000_000, 2_000_000)


def test_bytes_that_are_no_text():
    assert python("import sys; sys.stdout.buffer.write(b'\\xff')").stdout == "\ufffd"


def test_a_process_group_of_its_own():
    assert python("import os; print(os.getpgid(0) == os.getpid())").stdout == "True\n"


def test_failure():
    with pytest.raises(CommandFailed) as caught:
        python("import sys; sys.stderr.write('no medium found\\n'); sys.exit(3)")
    assert caught.value.exit_code == 3
    assert str(caught.value) == f"{sys.executable} exited with 3: no medium found"


def test_failure_that_speaks_on_standard_output():
    with pytest.raises(CommandFailed, match="said here"):
        python("print('said here'); raise SystemExit(1)")


def test_exit_codes_that_are_no_failure():
    assert python("raise SystemExit(2)", ok_codes=frozenset({0, 2})).exit_code == 2
    with pytest.raises(CommandFailed):
        python("", ok_codes=frozenset({2}))


@pytest.mark.parametrize(
    ("tool", "advice"),
    [
        ("mkfs.xfs", "install the package xfsprogs"),
        ("exportfs", "install the package nfs-kernel-server"),
        ("frobnicate", "install the package that has it"),
    ],
)
def test_program_that_is_not_installed(monkeypatch, tool, advice):
    run_module = importlib.import_module("csi_core.run")
    monkeypatch.setattr(run_module, "_SYSTEM_DIRECTORIES", ())
    monkeypatch.setattr(run_module, "_paths", {})
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(StorageFailure) as caught:
        read(tool)
    assert str(caught.value) == f"the program {tool} is not installed on this node; {advice}"


def test_a_program_installed_later_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StorageFailure):
        read("late-program")
    (tmp_path / "late-program").write_text("#!/bin/sh\necho here\n")
    (tmp_path / "late-program").chmod(0o755)
    assert read("late-program").stdout == "here\n"


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_reading_command_is_killed_with_its_children(tmp_path):
    pids = tmp_path / "pids"
    code = f"sleep 60 & echo $! > {pids}; echo $$ >> {pids}; wait"
    began = time.monotonic()
    with pytest.raises(TimedOut, match="sh was stopped after 0.5 s without an answer"):
        read("sh", "-c", code, timeout_s=0.5)
    assert time.monotonic() - began < 5
    time.sleep(0.05)
    assert [alive(int(pid)) for pid in pids.read_text().split()] == [False, False]


def test_a_child_that_left_the_group_and_keeps_the_pipe_holds_nobody_up(tmp_path):
    pid_file = tmp_path / "pid"
    began = time.monotonic()
    try:
        with pytest.raises(TimedOut):
            read("setsid", "--fork", "sh", "-c", f"echo $$ > {pid_file}; sleep 30", timeout_s=0.5)
        assert time.monotonic() - began < 5
    finally:
        os.kill(int(pid_file.read_text()), 9)


def test_a_changing_command_is_waited_for(tmp_path):
    marker = tmp_path / "done"
    with capture_logs() as logs:
        done = run(["sh", "-c", f"sleep 0.6; echo x > {marker}; echo end"], timeout_s=0.1, mutates=True)
    assert done.stdout == "end\n"
    assert done.duration_s >= 0.6
    assert marker.exists()
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == [
        "command takes long and is waited for"
    ]


@pytest.mark.parametrize("mutates", [True, False])
def test_an_interrupted_wait_leaves_no_reader_behind_and_stops_no_change(tmp_path, monkeypatch, mutates):
    def interrupted(process, *_, **__):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    marker = tmp_path / "done"
    with pytest.raises(KeyboardInterrupt):
        read("sh", "-c", f"sleep 0.3; touch {marker}", mutates=mutates)
    ends_at = time.monotonic() + (5 if mutates else 0.6)
    while not marker.exists() and time.monotonic() < ends_at:
        time.sleep(0.02)
    assert marker.exists() == mutates


def test_the_calls_deadline_cuts_the_time():
    began = time.monotonic()
    with deadline.call_deadline(0.3), pytest.raises(TimedOut):
        read("sleep", "30", timeout_s=20)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("mutates", [True, False])
def test_nothing_is_started_once_the_deadline_has_passed(tmp_path, mutates):
    marker = tmp_path / "started"
    with deadline.call_deadline(0):
        with pytest.raises(TimedOut):
            read("touch", str(marker), mutates=mutates)
        assert not marker.exists()
        with deadline.past_deadline():
            read("touch", str(marker), mutates=mutates)
        assert marker.exists()


def test_spawned_counts_each_program():
    before = spawned()
    read("true")
    read("/bin/true")
    read("echo")
    after = spawned()
    assert after["true"] - before.get("true", 0) == 2
    assert after["echo"] - before.get("echo", 0) == 1


def test_the_log_has_the_arguments_and_never_the_input():
    with capture_logs() as logs:
        python("import sys; sys.stdin.read()", stdin="correct horse battery")
    (entry,) = [entry for entry in logs if entry["event"] == "command"]
    assert entry["log_level"] == "debug"
    assert entry["argv"][0] == sys.executable
    assert entry["exit_code"] == 0
    assert entry["duration_s"] > 0
    assert "correct horse" not in str(logs)
