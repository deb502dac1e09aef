"""A volume group with many volumes of ours, without the minutes that making each by lvcreate takes."""

from __future__ import annotations

import random
import re
import string
import tempfile
from collections.abc import Iterator
from pathlib import Path

from volume_group import lvm, volumes

from backends.lvm import names, tags

_ALPHABET = string.ascii_letters + string.digits


def populate(group: str, count: int) -> None:
    """Add ``count`` copies, named ``many-N``, of the group's only LV, which is one extent long."""
    (template,) = volumes(group)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "metadata")
        lvm("vgcfgbackup", "-f", str(path), group)
        text = path.read_text()
        block = re.search(rf"^\t\t{template} \{{$.*?^\t\t\}}$\n", text, re.MULTILINE | re.DOTALL)
        assert block, f"no LV {template} in the metadata of {group}"
        copies = "".join(_copies(block[0], template, count))
        path.write_text(text.replace(block[0], block[0] + copies))
        lvm("vgcfgrestore", "-f", str(path), group)


def _copies(block: str, template: str, count: int) -> Iterator[str]:
    said = re.search(r"tags = \[(.*?)\]", block, re.DOTALL)
    start = re.search(r'stripes = \[\s*"(pv\d+)", (\d+)', block)
    assert said
    assert start
    fields = tags.decode(re.findall(r'"([^"]*)"', said[1]))
    for number in range(count):
        name = f"many-{number}"
        quoted = ", ".join(f'"{tag}"' for tag in tags.encode({**fields, "name": name}))
        copy = block.replace(said[0], f"tags = [{quoted}]").replace(
            start[0], f'stripes = [\n"{start[1]}", {int(start[2]) + 1 + number}'
        )
        copy = copy.replace(f"\t\t{template} {{", f"\t\t{names.lv_name(names.make_key('v', name))} {{")
        yield re.sub(r'id = "[^"]*"', f'id = "{_identifier(number)}"', copy, count=1)


def _identifier(number: int) -> str:
    """A UUID in LVM's form."""
    chosen = random.Random(number)
    return "-".join("".join(chosen.choices(_ALPHABET, k=length)) for length in (6, 4, 4, 4, 4, 4, 6))
