"""Logging is global to a process, so each test asks one of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def logged(code: str, log_format="json", level="info") -> list[str]:
    script = f"""
import logging, structlog
from csi_core import log
log.configure({log_format!r}, {level!r})
{code}
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_json_lines():
    (line,) = logged("structlog.get_logger().info('volume created', size_bytes=5)")
    entry = json.loads(line)
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {"event": "volume created", "level": "info", "size_bytes": 5}


def test_the_scope_of_a_call_is_on_every_line():
    lines = logged(
        "structlog.contextvars.bind_contextvars(request_id='r1')\n"
        "structlog.get_logger().info('one')\n"
        "logging.getLogger('some.backend').info('two %s', 'words')"
    )
    assert [(json.loads(line)["event"], json.loads(line)["request_id"]) for line in lines] == [
        ("one", "r1"),
        ("two words", "r1"),
    ]


@pytest.mark.parametrize(("level", "count"), [("debug", 2), ("info", 1), ("error", 0)])
def test_level_holds_for_both_kinds(level, count):
    code = "log_ = structlog.get_logger()\nlog_.debug('a'); log_.info('b')"
    assert len(logged(code, level=level)) == count
    code = "log_ = logging.getLogger('x')\nlog_.debug('a'); log_.info('b')"
    assert len(logged(code, level=level)) == count


def test_a_traceback_stays_within_its_line():
    code = "try: 1 / 0\nexcept ZeroDivisionError: structlog.get_logger().exception('failed')"
    (line,) = logged(code)
    assert "ZeroDivisionError" in json.loads(line)["exception"]


def test_console_is_plain_where_no_terminal_reads():
    (line,) = logged("structlog.get_logger().info('volume created', size_bytes=5)", log_format="console")
    assert "volume created" in line and "size_bytes=5" in line
    assert "\x1b" not in line
