"""Scatter plots with Pareto fronts that tell each point's setting, in a page without a kernel.

Every plot is inline SVG in the page's text colour, and every point an element with a title.
matplotlib places the points and the ticks; ``explorer.js``, inlined, serves the lists, the pointer
and the keyboard.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.figures.slider import inline_script, list_control
from helpers.results.fronts import on_front

EXPLORER = """<figure class="explorer" id="{key}">
<div class="explorer-controls">
{controls}
</div>
<p class="explorer-status"><output></output></p>
<p class="explorer-legend">{legend}; large marks are on the front</p>
{panels}
<p class="explorer-setting" hidden></p>
<figcaption>{caption}</figcaption>
<details hidden><summary>How to use this</summary><p>Choose from the lists. Point at a mark, or tap
it, to read its setting and values. By keyboard: Tab to the marks, arrow keys from one to the next,
Home and End to the outermost. {how}</p></details>
<details class="explorer-table"><summary>The points on the fronts as a table</summary>
<div class="scrolls" role="region" tabindex="0" aria-label="Points on the fronts">{table}</div>
</details>
</figure>
{script}"""
PANEL = """<div class="explorer-panel" data-plane="{plane}" data-task="{task}">
<svg viewBox="0 0 {width} {height}" role="img" aria-label="{alt}" fill="currentColor" font-size="14"
style="width:100%;max-width:38rem">{frame}{lines}<g class="points">{marks}</g></svg>
</div>"""
MARK = """<path d="{shape}" transform="translate({x:.1f} {y:.1f}) scale({size})" fill="{color}"
data-method="{method}" data-front="{fronts}"><title>{text}</title></path>"""
SYMBOL = """<svg viewBox="-2 -2 4 4" width="16" height="16" aria-hidden="true">
<path d="{shape}" fill="{color}"/></svg>"""

WIDTH, HEIGHT = 460, 335  # of a plot, in its own units, which a screen scales
LEFT, TOP, RIGHT, BOTTOM = 104, 30, 448, 280  # of the axes
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


def explorer(
    key: str,
    points: pd.DataFrame,
    planes: Mapping[str, tuple[str, str]],
    *,
    measures: Mapping[str, str],
    settings: Mapping[str, str],
    colors: Mapping[str, str],
    caption: str,
    how: str = "",
) -> HTML:
    """One plot a plane and task, with lists to choose plane, task and method.

    Without JavaScript every plot is shown, a mouse still finds the settings, and a table has the
    points on the fronts.

    Args:
        key: id of the figure, unique in its page.
        points: one row a fit, with columns ``task``, ``method`` and those named below. Measures are
            best at 0.
        planes: name -> the columns of the horizontal and the vertical axis.
        measures: column -> label with its unit, for axes and for a point's text.
        settings: column -> symbol, for a point's text.
        colors: method -> colour; four methods at most.
        caption: under the plots.
        how: what to look for, added to the folded line on how to use the plots.

    Raises:
        ValueError: a measure that is not finite, or a method without a colour.
    """
    if not np.isfinite(points[list(measures)].to_numpy(float)).all():
        raise ValueError("every measure must be finite: leave out the fits that failed.")
    shapes = dict(zip(colors, SHAPES))
    if unknown := set(points["method"]) - set(shapes):
        raise ValueError(f"no colour or shape for {unknown}: colors has {list(colors)}.")
    # The plots, and the rows of the table
    tasks = list(dict.fromkeys(points["task"]))
    panels, front = [], []
    for task in tasks:
        part = points[points["task"] == task]
        for plane, columns in planes.items():
            panels.append(_panel(part, task, plane, columns, measures, settings, colors))
            front.append(part[on_front(part, columns)].assign(plane=plane))
    table = pd.concat(front)[["task", "plane", "method", *settings, *measures]]
    table = table.rename(columns={**settings, **measures}).map(number)
    # The lists, and the legend
    lists = {"Plane": list(planes), "Task": tasks, "Method": [ALL, *colors]}
    controls = [list_control(f"{key}-{name.lower()}", name, lists[name]) for name in lists]
    legend = []
    for method, shape in shapes.items():
        legend.append(f"{SYMBOL.format(shape=shape, color=colors[method])} {escape(method)}")
    html = EXPLORER.format(
        key=key,
        controls="\n".join(controls),
        legend=" ".join(legend),
        panels="\n".join(panels),
        caption=escape(caption),
        how=escape(how),
        table=table.to_html(index=False, border=0),
        script=inline_script("explorer.js", f'explorer("{key}", {LARGE}, {SMALL})'),
    )
    return HTML(html)


def _panel(
    points: pd.DataFrame,
    task: str,
    plane: str,
    columns: tuple[str, str],
    measures: Mapping[str, str],
    settings: Mapping[str, str],
    colors: Mapping[str, str],
) -> str:
    """One plot: the axes, a step line under each front, and a mark a row from left to right.

    ``data-front`` of marks and lines names the fronts they are on, of all methods or of their own,
    divided by ``|``. Lines other than that of all methods are hidden.
    """
    points = points.sort_values(list(columns), ignore_index=True)
    fronts = {ALL: on_front(points, columns)}
    for method in colors:
        own = points[points["method"] == method]
        fronts[method] = on_front(own, columns).reindex(points.index, fill_value=False)
    axes = _axes(points[list(columns)].to_numpy(float))
    x, y = _place(axes, points[list(columns)].to_numpy(float))
    title = f"{task}, {plane}"
    # Step lines: from each point down to the next one's height, then across
    lines = []
    for which, on in fronts.items():
        steps = zip(np.repeat(x[on], 2)[:-1], np.repeat(y[on], 2)[1:])
        corners = " ".join(f"{across:.1f},{down:.1f}" for across, down in steps)
        hidden = "" if which == ALL else ' style="display:none"'
        line = f'data-front="{escape(which)}" points="{corners}" fill="none" stroke="{GREY}"'
        lines.append(f"<polyline {line}{hidden}/>")
    # Marks, each with a text of its setting and values
    shapes = dict(zip(colors, SHAPES))
    marks = []
    for i, row in enumerate(points.to_dict("records")):
        method, on = row["method"], [which for which in fronts if fronts[which][i]]
        setting = ", ".join(f"{settings[name]} = {number(row[name])}" for name in settings)
        values = "; ".join(f"{measures[name]}: {number(row[name])}" for name in measures)
        where = "on the front" if ALL in on else "on the front of this method alone" if on else ""
        text = f"{method}, {setting}: {values}" + (where and f"; {where}")
        mark = MARK.format(
            shape=shapes[method],
            x=x[i],
            y=y[i],
            size=LARGE if ALL in on else SMALL,
            color=colors[method],
            method=escape(method),
            fronts=escape("|".join(on)),
            text=escape(text),
        )
        marks.append(mark)
    counts = points["method"][fronts[ALL]].value_counts()
    of_each = ", ".join(f"{counts.get(method, 0)} of them {method}" for method in colors)
    alt = f"Scatter plot, {title}: {len(points)} settings, {counts.sum()} on the front, {of_each}."
    return PANEL.format(
        plane=escape(plane),
        task=escape(task),
        width=WIDTH,
        height=HEIGHT,
        alt=escape(alt),
        frame=_frame(axes, title, measures[columns[0]], measures[columns[1]]),
        lines="".join(lines),
        marks="".join(marks),
    )


def _axes(values: np.ndarray) -> Axes:
    """Axes of the plot's size, scaled to values [point, 2]: symmetric-logarithmic upwards."""
    place = (LEFT / WIDTH, 1 - BOTTOM / HEIGHT, (RIGHT - LEFT) / WIDTH, (BOTTOM - TOP) / HEIGHT)
    axes = Figure((WIDTH / 100, HEIGHT / 100), dpi=100).add_axes(place)
    axes.plot(*values.T)
    axes.margins(0.06)
    axes.locator_params(nbins=5)
    if values[:, 1].min() < -1:  # within the linear part round ticks serve better than powers
        axes.set_yscale("symlog", linthresh=1)
    return axes


def _place(axes: Axes, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where values [point, 2] lie in the plot; SVG counts heights downwards."""
    axes.autoscale_view()
    x, y = axes.transData.transform(values).T
    return x, HEIGHT - y


def _frame(axes: Axes, title: str, x_label: str, y_label: str) -> str:
    """The frame with ticks, labels and title."""
    size = f'width="{RIGHT - LEFT}" height="{BOTTOM - TOP}"'
    parts = [f'<rect x="{LEFT}" y="{TOP}" {size} fill="none" stroke="{GREY}"/>']

    def write(place: str, text: str, anchor: str = "middle") -> None:
        parts.append(f'<text {place} text-anchor="{anchor}">{escape(text)}</text>')

    # Ticks across, then upwards
    ticks = axes.get_xticks()
    for tick, at in zip(ticks, _place(axes, np.stack([ticks, 0 * ticks], 1))[0]):
        if LEFT <= at <= RIGHT:
            parts.append(f'<path d="M{at:.1f} {BOTTOM}v4" stroke="{GREY}"/>')
            write(f'x="{at:.1f}" y="{BOTTOM + 19}"', number(tick))
    ticks = axes.get_yticks()
    for tick, at in zip(ticks, _place(axes, np.stack([0 * ticks, ticks], 1))[1]):
        if TOP <= at <= BOTTOM:
            parts.append(f'<path d="M{LEFT} {at:.1f}h-4" stroke="{GREY}"/>')
            write(f'x="{LEFT - 7}" y="{at + 5:.1f}"', number(tick), "end")
    # Labels and title
    middle, centre = (LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2
    write(f'x="{middle}" y="{HEIGHT - 10}"', x_label)
    write(f'transform="translate(15 {centre}) rotate(-90)"', y_label)
    write(f'x="{middle}" y="{TOP - 11}" font-weight="bold"', title)
    return "".join(parts)


def number(value: float | str) -> str:
    """A number in few digits, with a minus sign; a text unchanged."""
    if isinstance(value, str):
        return value
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return ("0" if value == 0 else text).replace("-", "−")
