"""Charts as inline SVG. Their colours are classes of the page's style sheet: ``s0`` to ``s7``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count

from markupsafe import Markup, escape

from wsss.report.curves import Series

WIDTH, HEIGHT = 520, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 30
MOST_POINTS = 300
"""Points of a curve; longer ones are thinned."""
COLOURS = 8

_numbers = count()


def line_chart(title: str, series: Sequence[Series], *, percent: bool = False) -> Markup:
    """Curves over the steps of a training, with a key below.

    Args:
        title: is read out by screen readers.
        series: at least one point each.
        percent: values are shares in [0, 1], shown in percent.
    """
    points = [point for one in series for point in one.points]
    last = max(step for step, _ in points)
    low, high = min(value for _, value in points), max(value for _, value in points)
    ticks = nice_ticks(min(0.0, low) if not percent else low, high)
    low, high = min(ticks[0], low), max(ticks[-1], high)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / (last or 1)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / ((high - low) or 1)

    identity = f"chart{next(_numbers)}"
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{identity}">'
        f'<title id="{identity}">{escape(title)}</title>'
    ]
    for tick in ticks:
        shown = f"{100 * tick:g}%" if percent else f"{tick:g}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{shown}</text>')
    for step in nice_ticks(0, last):
        if step <= last:
            parts.append(f'<text x="{x(step):.1f}" y="{HEIGHT - 10}" text-anchor="middle">{step:g}</text>')
    for index, one in enumerate(series):
        thin = one.points[:: math.ceil(len(one.points) / MOST_POINTS)]
        line = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in thin)
        parts.append(f'<polyline class="s{index % COLOURS}" points="{line}"/>')
        if len(thin) < 20:
            dots = (f'<circle cx="{x(step):.1f}" cy="{y(value):.1f}" r="2.5"/>' for step, value in thin)
            parts.append(f'<g class="s{index % COLOURS}">{"".join(dots)}</g>')
    parts.append("</svg>")
    keys = (f'<li class="s{index % COLOURS}">{escape(one.name)}</li>' for index, one in enumerate(series))
    return Markup("".join(parts) + f'<ul class="key">{"".join(keys)}</ul>')


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers from at most ``low`` to about ``high``: steps of 1, 2 or 5 times a power of ten."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / wanted))
    step = next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= wanted)
    first = math.floor(low / step)
    return [round(step * (first + k), 10) for k in range(math.ceil(high / step - first) + 1)]
