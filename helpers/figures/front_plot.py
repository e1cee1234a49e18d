"""A scatter plot with Pareto fronts as inline SVG: every point an element of the page, in the page's own text colour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

import numpy as np
import pandas as pd
from matplotlib.scale import SymmetricalLogTransform
from matplotlib.ticker import MaxNLocator, SymmetricalLogLocator

from helpers.results.fronts import on_front

# Sizes in the plot's own units, which a screen scales: the plot, and the frame of its points (left, top, right, bottom).
WIDTH, HEIGHT, FRAME = 460, 335, (86, 30, 448, 280)
PAST = 0.06  # of the frame, beyond the outermost points
SYMLOG = {
    "base": 10,
    "linthresh": 1,
}  # vertical axes: linear to here, then logarithmic, as in the chapter's figures
# Methods differ in shape as well as in colour.
SHAPES = (
    "M-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0",
    "M0-1.25L1.25 0L0 1.25L-1.25 0Z",
    "M-1-1H1V1H-1Z",
    "M0-1.3L1.2.9H-1.2Z",
)
LARGE, SMALL = 5.5, 3  # marks on the front, and others
GREY = "#7f7f7f"
ALL = "all methods"
Ticks = list[tuple[float, str]]  # where on the axis, and what it says


def front_plot(
    points: pd.DataFrame,
    title: str,
    columns: tuple[str, str],
    *,
    measures: Mapping[str, str],
    settings: Mapping[str, str],
    colors: Mapping[str, str],
) -> str:
    """An SVG element: axes, the step line under each front, and a mark a row, with a title that tells its setting and values.

    Marks carry ``data-method`` and ``data-front``, the fronts that they are on (of all methods, of their own), divided by
    ``|``; each line carries ``data-front`` too. All but the line of all methods are hidden.

    Args:
        points: one row a fit, with a column ``method`` and those that the other arguments name; measures are best at 0.
        title: above the plot.
        columns: of the horizontal and the vertical axis.
        measures: column -> what it is, with its unit.
        settings: column -> symbol.
        colors: method -> colour; as many methods as there are shapes at most.
    """
    points = points.sort_values(list(columns), ignore_index=True)
    fronts = {ALL: on_front(points, columns)}
    for method in colors:
        own = points[points["method"] == method]
        fronts[method] = on_front(own, columns).reindex(points.index, fill_value=False)
    left, top, right, bottom = FRAME
    x, x_ticks = _axis(points[columns[0]].to_numpy(float), left, right, linear=True)
    y, y_ticks = _axis(points[columns[1]].to_numpy(float), bottom, top, linear=False)
    drawn = [*_axes(x_ticks, y_ticks, title, measures[columns[0]], measures[columns[1]])]
    for which, on in fronts.items():
        hidden = "" if which == ALL else ' style="display:none"'
        corners = _steps(x[on.to_numpy()], y[on.to_numpy()])
        drawn.append(
            f'<polyline data-front="{escape(which)}" points="{corners}" fill="none" stroke="{GREY}"{hidden}/>'
        )
    marks = []
    for i, row in enumerate(points.to_dict("records")):
        method, on = row["method"], [which for which, on in fronts.items() if on.iloc[i]]
        place = f"translate({x[i]:.1f} {y[i]:.1f}) scale({LARGE if ALL in on else SMALL})"
        told = ", ".join(f"{symbol} = {number(row[name])}" for name, symbol in settings.items())
        values = "; ".join(f"{text}: {number(row[name])}" for name, text in measures.items())
        where = (
            "; on the front" if ALL in on else "; on the front of this method alone" if on else ""
        )
        marks.append(
            f'<path d="{SHAPES[list(colors).index(method)]}" transform="{place}" fill="{colors[method]}" data-method="{escape(method)}" '
            f'data-front="{escape("|".join(on))}"><title>{escape(f"{method}, {told}: {values}{where}")}</title></path>'
        )
    counts = ", ".join(
        f"{(points['method'][fronts[ALL]] == method).sum()} of them {method}" for method in colors
    )
    alt = f"Scatter plot, {title}: {len(points)} settings, {fronts[ALL].sum()} on the front, {counts}."
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(alt)}" fill="currentColor" font-size="14" '
        f'style="width:100%;max-width:38rem">{"".join(drawn)}<g class="points">{"".join(marks)}</g></svg>'
    )


def symbol(shape: str, color: str) -> str:
    """A mark by itself, for a legend."""
    return f'<svg viewBox="-2 -2 4 4" width="16" height="16" aria-hidden="true"><path d="{shape}" fill="{color}"/></svg>'


def number(value: float | str) -> str:
    """A number in few digits, with a minus sign; anything else as it is."""
    if isinstance(value, str):
        return value
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return ("0" if float(value) == 0 else text).replace("-", "−")


def _axes(x_ticks: Ticks, y_ticks: Ticks, title: str, x_label: str, y_label: str) -> Iterator[str]:
    left, top, right, bottom = FRAME
    middle, centre = (left + right) / 2, (top + bottom) / 2
    yield f'<rect x="{left}" y="{top}" width="{right - left}" height="{bottom - top}" fill="none" stroke="{GREY}"/>'
    for at, text in x_ticks:
        yield f'<path d="M{at:.1f} {bottom}v4" stroke="{GREY}"/><text x="{at:.1f}" y="{bottom + 19}" text-anchor="middle">{text}</text>'
    for at, text in y_ticks:
        yield f'<path d="M{left} {at:.1f}h-4" stroke="{GREY}"/><text x="{left - 7}" y="{at + 5:.1f}" text-anchor="end">{text}</text>'
    yield f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_label)}</text>'
    yield f'<text transform="translate(15 {centre}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    yield f'<text x="{middle}" y="{top - 11}" text-anchor="middle" font-weight="bold">{escape(title)}</text>'


def _axis(
    values: np.ndarray, start: float, end: float, *, linear: bool
) -> tuple[np.ndarray, Ticks]:
    """Where values lie between start and end, and the ticks that fit: where, and what they say."""
    logarithmic = SymmetricalLogTransform(**SYMLOG, linscale=1)
    scale = (lambda x: np.asarray(x)) if linear else logarithmic.transform_non_affine
    low, high = float(values.min()), float(values.max())
    few = (
        linear or low >= -SYMLOG["linthresh"]
    )  # within the part that is linear, round numbers serve better than powers
    ticks = (
        MaxNLocator(5).tick_values(low, high)
        if few
        else SymmetricalLogLocator(**SYMLOG).tick_values(low, 0)
    )
    bottom, top = scale(np.array([low, high], dtype=float))
    room = PAST * (top - bottom) or 1.0

    def place(x: np.ndarray) -> np.ndarray:
        return start + (scale(np.asarray(x, dtype=float)) - bottom + room) / (
            top - bottom + 2 * room
        ) * (end - start)

    inside = [
        (at, number(tick))
        for tick, at in zip(ticks, place(ticks))
        if min(start, end) <= at <= max(start, end)
    ]
    return place(values), inside


def _steps(x: np.ndarray, y: np.ndarray) -> str:
    """The corners of the line under a front whose points come by ascending x: down to the next point's height, then across."""
    corners = [(x[0], y[0])] if len(x) else []
    for i in range(1, len(x)):
        corners += [(x[i - 1], y[i]), (x[i], y[i])]
    return " ".join(f"{across:.1f},{down:.1f}" for across, down in corners)
