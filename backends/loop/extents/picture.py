"""A pool as a picture: which part of each segment is free, used, or waits to be zeroed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["COLOURS", "KINDS", "Cells", "png", "svg"]

KINDS: Final = ("volume", "snapshot", "quarantined", "free")
COLOURS: Final = {"volume": "#3b6ea8", "snapshot": "#6aa84f", "quarantined": "#cc8400", "free": "#e6e6e6"}
"""Told apart in grey, too, and by people who see no red."""

_COLUMNS: Final = 96
_CELL_PIXELS: Final = 8
_TEXT_PIXELS: Final = 18


@dataclass(frozen=True)
class Cells:
    """One segment, cut into cells of equal length.

    Attributes:
        title: its path and size, for people.
        extents: its length.
        kinds: for each cell, the kind that most of it is.
    """

    title: str
    extents: int
    kinds: Sequence[str]

    @classmethod
    def of(cls, title: str, extents: int, runs: Iterable[tuple[int, int, str]], count: int) -> Cells:
        """Cut ``extents`` into at most ``count`` cells; ``runs`` are start, length and kind of all that is held."""
        count = max(1, min(count, extents))
        held: list[dict[str, int]] = [{} for _ in range(count)]
        for start, length, kind in runs:
            first, last = start * count // extents, (start + length - 1) * count // extents
            for cell in range(first, last + 1):
                begin, end = -(-cell * extents // count), -(-(cell + 1) * extents // count)
                overlap = min(start + length, end) - max(start, begin)
                held[cell][kind] = held[cell].get(kind, 0) + overlap
        kinds = []
        for cell, shares in enumerate(held):
            length = -(-(cell + 1) * extents // count) - -(-cell * extents // count)
            used = sum(shares.values())
            # A cell of which anything is used is shown so: a lone volume must not vanish in an empty pool.
            kinds.append(max(shares, key=lambda kind: shares[kind]) if used and used * 16 >= length else "free")
        return cls(title, extents, kinds)


def svg(segments: Sequence[Cells]) -> str:
    """The picture as SVG, with titles and a legend."""
    parts, top = [], 0
    for segment in segments:
        parts.append(f'<text x="0" y="{top + 13}">{_escaped(segment.title)}</text>')
        top += _TEXT_PIXELS
        for row in range(0, len(segment.kinds), _COLUMNS):
            parts += [
                f'<rect x="{first * _CELL_PIXELS}" y="{top}" width="{length * _CELL_PIXELS - 1}" '
                f'height="{_CELL_PIXELS - 1}" fill="{COLOURS[kind]}"/>'
                for first, length, kind in _joined(segment.kinds[row : row + _COLUMNS])
            ]
            top += _CELL_PIXELS
        top += _CELL_PIXELS
    for number, kind in enumerate(KINDS):
        left = number * 120
        parts.append(f'<rect x="{left}" y="{top + 4}" width="10" height="10" fill="{COLOURS[kind]}"/>')
        parts.append(f'<text x="{left + 16}" y="{top + 13}">{kind}</text>')
    size = f'width="{_COLUMNS * _CELL_PIXELS}" height="{top + _TEXT_PIXELS}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def png(segments: Sequence[Cells]) -> bytes:
    """The picture as PNG, without words."""
    width = _COLUMNS * _CELL_PIXELS
    palette = b"".join(bytes.fromhex(COLOURS[kind][1:]) for kind in KINDS) + b"\xff\xff\xff"
    white = len(KINDS)
    lines: list[bytes] = []
    for segment in segments:
        for row in range(0, len(segment.kinds), _COLUMNS):
            cells = segment.kinds[row : row + _COLUMNS]
            line = b"".join(bytes([KINDS.index(kind)]) * (_CELL_PIXELS - 1) + bytes([white]) for kind in cells)
            lines += [line.ljust(width, bytes([white]))] * (_CELL_PIXELS - 1) + [bytes([white]) * width]
        lines += [bytes([white]) * width] * _CELL_PIXELS
    pixels = b"".join(b"\0" + line for line in lines)  # each line begins with the number of its filter: none
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, content)
        for kind, content in (
            (b"IHDR", struct.pack(">2I5B", width, len(lines), 8, 3, 0, 0, 0)),
            (b"PLTE", palette),
            (b"IDAT", zlib.compress(pixels)),
            (b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _joined(kinds: Sequence[str]) -> Iterable[tuple[int, int, str]]:
    """First cell, number of cells and kind of what is the same side by side."""
    first = 0
    for cell in range(1, len(kinds) + 1):
        if cell == len(kinds) or kinds[cell] != kinds[first]:
            yield first, cell - first, kinds[first]
            first = cell


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
