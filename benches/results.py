"""Results as JSON, as a table in Markdown and as a picture; and the table beside the one that was committed."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from benches import lines
from benches.ratios import Findings
from benches.scale import SCALE

__all__ = ["LATEST", "Result", "load", "machine", "markdown", "save", "table"]

LOAD = os.getloadavg()[0]
"""When the run began: what else the machine was doing."""

LATEST = Path(__file__).parent / "results" / "latest.json"

Result = Mapping[str, Any]


def machine(directory: Path) -> dict[str, str]:
    """What was measured on; ``directory`` lies on the pools' filesystem."""
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?")
    return {
        "cpu": f"{os.cpu_count()} x {cpu}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "filesystem": _filesystem(directory),
        "load": f"{LOAD:.1f}",
    }


def load() -> Result:
    """The last committed results, or an empty one."""
    return json.loads(LATEST.read_text(encoding="utf-8")) if LATEST.exists() else {"findings": []}


def save(findings: Findings, directory: Path) -> None:
    """Write ``latest.json``, ``latest.md``, ``latest.svg``, and a picture for each finding with lines."""
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "form": SCALE.form,
        "volumes": SCALE.volumes,
        "machine": machine(directory),
        "findings": findings.as_json(),
    }
    LATEST.parent.mkdir(exist_ok=True)
    LATEST.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    LATEST.with_suffix(".md").write_text(markdown(result), encoding="utf-8")
    LATEST.with_suffix(".svg").write_text(picture(result["findings"]), encoding="utf-8")
    for finding in _plotted(result):
        LATEST.with_name(f"{finding['key']}.svg").write_text(lines.picture(finding["plot"]), encoding="utf-8")


def markdown(result: Result) -> str:
    """The table for people, with what it was measured on."""
    where = result["machine"]
    parts = [
        "# Benchmarks",
        "",
        f"Measured {result['date']} on {where['cpu']}, Linux {where['kernel']}, Python {where['python']}, pools on "
        f"{where['filesystem']}; load average at the start {where['load']}. Written by `make bench`; how each value is "
        "made stands in [README.md](../README.md).",
        "",
        "![each value beside its bound](latest.svg)",
        "",
        "| | value | bound | | measured | floor |",
        "|---|---:|---|---|---|---|",
    ]
    parts += [
        f"| {f['title']} | {_number(f)} | {f['bound']} | {'met' if f['met'] else '**missed**'} "
        f"| {f['subject']} | {f['floor']} |"
        for f in result["findings"]
    ]
    notes = [f"- {f['title']}: {f['note']}" for f in result["findings"] if f["note"]]
    parts += ["", *notes] if notes else []
    for finding in _plotted(result):
        plot = finding["plot"]
        parts += ["", f"## {plot['title']}", "", f"![{plot['title']}]({finding['key']}.svg)", "", *lines.points(plot)]
        parts += ["", f"Measured {plot['how']}."]
    return "\n".join(parts) + "\n"


def table(findings: Findings, committed: Result) -> list[str]:
    """Lines for the terminal: this run beside the last committed one."""
    before = {f["key"]: f for f in committed["findings"]}
    rows = [("", "value", "bound", "", "committed", "measured", "floor")]
    for finding in findings.as_json():
        old = before.get(finding["key"])
        rows.append(
            (
                finding["title"],
                _number(finding),
                finding["bound"],
                "met" if finding["met"] else "MISSED",
                _number(old) if old else "-",
                finding["subject"],
                finding["floor"],
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def picture(findings: Sequence[Mapping[str, Any]]) -> str:
    """Bars as SVG: how much of its bound each value takes up; beyond the line it is missed."""
    bounded = [f for f in findings if f["bound"].startswith("at ")]
    left, width, step = 260, 320, 26
    height = step * len(bounded) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 170}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for row, finding in enumerate(bounded):
        limit = float(finding["bound"].split()[-1])
        ratio = finding["value"] / limit
        share = min(1 / ratio if "least" in finding["bound"] else ratio, 2.0)
        y = 12 + row * step
        colour = "#2f7d4f" if finding["met"] else "#b5452c"
        parts += [
            f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(finding["title"])}</text>',
            f'<rect x="{left}" y="{y}" width="{share * width / 2:.0f}" height="16" fill="{colour}"/>',
            f'<text x="{left + width + 10}" y="{y + 12}">{escape(_number(finding))} '
            f"({escape(finding['bound'])})</text>",
        ]
    x = left + width // 2
    parts += [
        f'<line x1="{x}" y1="6" x2="{x}" y2="{height - 24}" stroke="#333" stroke-dasharray="3 3"/>',
        f'<text x="{x}" y="{height - 8}" text-anchor="middle" fill="#333">the bound</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _plotted(result: Result) -> list[Mapping[str, Any]]:
    return [finding for finding in result["findings"] if finding.get("plot")]


def _number(finding: Mapping[str, Any]) -> str:
    return f"{finding['value']:.3g} {finding['unit']}"


def _filesystem(directory: Path) -> str:
    best, kind = "", "?"
    for line in _lines("/proc/self/mounts"):
        point, fs_type = line.split()[1:3]
        if Path(directory).resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, fs_type
    return kind


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()
