"""Lines over logarithmic axes as SVG, and their points as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["picture", "points", "short"]

COLOURS = ("#1b6ca8", "#d1495b", "#3d8b5f", "#8a63b3")
LEFT, TOP, WIDTH, HEIGHT = 70, 34, 560, 320
"""Of the area between the axes, in pixels."""


class Axis:
    """Whole decades, laid out between two pixels."""

    def __init__(self, values: Sequence[float], begin: int, end: int) -> None:
        self.first = math.floor(math.log10(min(values)))
        self.last = max(math.ceil(math.log10(max(values))), self.first + 1)
        self._begin, self._end = begin, end

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return self._begin + (math.log10(value) - self.first) / (self.last - self.first) * (self._end - self._begin)

    def decades(self) -> Sequence[float]:
        return [10.0**power for power in range(self.first, self.last + 1)]


def picture(plot: Mapping[str, Any]) -> str:
    """``plot`` as SVG: each line with its name and, at each point, its value.

    Args:
        plot: ``title``; ``how`` it was measured, in a line; ``x`` and ``y``, the axes with their units; ``lines``, by
            name x and y of each point.
    """
    lines: Mapping[str, Sequence[Sequence[float]]] = plot["lines"]
    x = Axis([point[0] for line in lines.values() for point in line], LEFT, LEFT + WIDTH)
    y = Axis([point[1] for line in lines.values() for point in line], TOP + HEIGHT, TOP)
    bottom, right = TOP + HEIGHT, LEFT + WIDTH
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{right + 40}" height="{bottom + 66}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-weight="bold">{escape(plot["title"])}</text>',
    ]
    for value in x.decades():
        at = f"{x.at(value):.0f}"
        parts += [
            f'<line x1="{at}" y1="{TOP}" x2="{at}" y2="{bottom}" stroke="#ddd"/>',
            f'<text x="{at}" y="{bottom + 18}" text-anchor="middle" fill="#555">{value:,.0f}</text>',
        ]
    for value in y.decades():
        at = f"{y.at(value):.0f}"
        parts += [
            f'<line x1="{LEFT}" y1="{at}" x2="{right}" y2="{at}" stroke="#ddd"/>',
            f'<text x="{LEFT - 8}" y="{y.at(value) + 4:.0f}" text-anchor="end" fill="#555">{value:,g}</text>',
        ]
    middle = TOP + HEIGHT // 2
    parts += [
        f'<text x="{LEFT + WIDTH // 2}" y="{bottom + 38}" text-anchor="middle">{escape(plot["x"])}</text>',
        f'<text x="{LEFT}" y="{bottom + 58}" font-size="11" fill="#555">{escape(plot["how"])}</text>',
        f'<text transform="translate(18 {middle}) rotate(-90)" text-anchor="middle">{escape(plot["y"])}</text>',
    ]
    for colour, (name, line) in zip(COLOURS, lines.items(), strict=False):
        path = " ".join(f"{x.at(at):.1f},{y.at(value):.1f}" for at, value in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for at, value in line:
            shown = f'x="{x.at(at):.1f}" y="{y.at(value) - 9:.1f}" text-anchor="middle" fill="{colour}"'
            parts += [
                f'<circle cx="{x.at(at):.1f}" cy="{y.at(value):.1f}" r="4" fill="{colour}"/>',
                f"<text {shown}>{short(value)}</text>",
            ]
        at, value = line[len(line) // 2]
        parts.append(
            f'<text x="{x.at(at):.1f}" y="{y.at(value) + 20:.1f}" fill="{colour}" font-weight="bold">'
            f"{escape(name)}</text>"
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def points(plot: Mapping[str, Any]) -> list[str]:
    """The points as a table in Markdown."""
    lines = {name: dict(line) for name, line in plot["lines"].items()}
    columns = sorted({at for line in lines.values() for at in line})
    return [
        f"| {plot['y']}, by {plot['x']} | {' | '.join(f'{at:,}' for at in columns)} |",
        f"|---|{'---:|' * len(columns)}",
        *(
            f"| {name} | {' | '.join(short(line[at]) if at in line else '' for at in columns)} |"
            for name, line in lines.items()
        ),
    ]


def short(value: float) -> str:
    """Three digits that count, and no exponent."""
    return f"{float(f'{value:.3g}'):,g}"
