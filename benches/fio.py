"""fio on two filesystems in turns."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

__all__ = ["in_turns"]


def in_turns(ours: Path, theirs: Path, options: list[str], measure: str, pairs: int) -> list[tuple[float, float]]:
    """What short runs find on both sides, one at a time, in the order A B B A: pairs of ours and theirs.

    One fio does all of them, so that the two runs of a pair are a moment apart, whatever else the machine is up to.
    Both files are laid out beforehand, and a first pair of runs does not count.

    Args:
        ours, theirs: directories on the two filesystems.
        options: of a job, as in a job file; how much it writes is one of them.
        measure: a key of what fio reports about writes.
        pairs: how many of them.
    """
    jobs = ["[global]", *options, "direct=1", "overwrite=1", "fallocate=none", "thread", "stonewall"]
    for number in range(pairs + 1):
        names = ("ours", "theirs") if number % 2 else ("theirs", "ours")
        for name in names:
            jobs += [f"[{name}{number}]", f"filename={ours / 'ours' if name == 'ours' else theirs / 'theirs'}"]
    argv = ["fio", "--output-format=json", "-"]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, input="\n".join(jobs))
    found = {job["jobname"]: float(job["write"][measure]) for job in json.loads(done.stdout)["jobs"]}
    return [(found[f"ours{number}"], found[f"theirs{number}"]) for number in range(1, pairs + 1)]
