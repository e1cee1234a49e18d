"""Scatter plots with Pareto fronts that can be asked for a point's setting in a published page, where no kernel runs."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np
import pandas as pd
from IPython.display import HTML

from helpers.figures.front_plot import ALL, LARGE, SHAPES, SMALL, front_plot, number, symbol
from helpers.figures.slider import check_key
from helpers.results.fronts import on_front

TEMPLATE = """<figure class="explorer" id="{key}">
<div class="explorer-controls" hidden>
{controls}
</div>
<p class="explorer-status"><output></output></p>
<p class="explorer-legend">{legend}; large marks are on the front</p>
{panels}
<p class="explorer-setting" hidden></p>
<figcaption>{caption}</figcaption>
<details hidden><summary>How to use this</summary><p>Choose from the lists. Point at a mark, or tap it, to read its setting and values. By
keyboard: Tab to the marks, arrow keys from one to the next, Home and End to the outermost. {how}</p></details>
<details class="explorer-table"><summary>The points on the fronts as a table</summary><div class="scrolls" role="region" tabindex="0"
aria-label="Points on the fronts">{table}</div></details>
</figure>
<script>({script})("{key}");</script>"""
SELECT = '<p><label for="{id}">{label}:</label> <select id="{id}">{options}</select></p>'
# Static, a plot is one picture with a text. The script makes its points a list of options, with one stop of the Tab key.
SCRIPT = """key => {
const figure = document.getElementById(key), said = figure.querySelector(".explorer-setting");
const [plane, task, method] = figure.querySelectorAll("select"), panels = [...figure.querySelectorAll(".explorer-panel")];
const told = point => point.querySelector("title").textContent, place = point => point.getAttribute("transform").split(")")[0];
let points = [], current = null;
const select = (point, focus) => {
  for (const each of points) {
    each.setAttribute("aria-selected", each === point);
    each.tabIndex = each === point ? 0 : -1;
  }
  current = point;
  const others = points.filter(each => each !== point && place(each) === place(point)).map(each => told(each).split(":")[0]);
  said.textContent = told(point) + (others.length ? `. At the same place: ${others.join("; ")}` : "") + ".";
  if (focus) point.focus();
};
const show = () => {
  for (const panel of panels) {
    panel.hidden = panel.dataset.plane !== plane.value || panel.dataset.task !== task.value;
    for (const line of panel.querySelectorAll("polyline")) line.style.display = line.dataset.front === method.value ? "" : "none";
    for (const point of panel.querySelectorAll(".points path")) {
      const front = point.dataset.front.split("|").includes(method.value);
      point.style.display = method.selectedIndex && point.dataset.method !== method.value ? "none" : "";
      point.setAttribute("transform", point.getAttribute("transform").replace(/scale.*/, `scale(${front ? LARGE : SMALL})`));
    }
  }
  points = [...figure.querySelectorAll(".explorer-panel:not([hidden]) .points path")].filter(point => point.style.display !== "none");
  const front = points.filter(point => point.dataset.front.split("|").includes(method.value)).length;
  figure.querySelector("output").textContent =
    `${task.value}, ${plane.value}, ${method.value}: ${points.length} settings, ${front} on the front.`;
  points.forEach((point, i) => { point.tabIndex = i ? -1 : 0; point.setAttribute("aria-selected", false); });
  current = null;
  said.textContent = "Point at a mark to read its setting.";
};
const nearest = event => {
  let best = 24;  // pixels, a finger's width
  let found = null;
  for (const point of points) {
    const box = point.getBoundingClientRect();
    const away = Math.hypot(event.clientX - box.x - box.width / 2, event.clientY - box.y - box.height / 2);
    if (away < best) [best, found] = [away, point];
  }
  if (found && found !== current) select(found, false);
};
const STEPS = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity};
for (const panel of panels) {
  const [plot, list] = [panel.querySelector("svg"), panel.querySelector(".points")];
  plot.setAttribute("role", "group");
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", `Settings of ${panel.dataset.task} from left to right`);
  for (const point of list.children) point.setAttribute("role", "option");
  plot.addEventListener("pointermove", nearest);
  plot.addEventListener("pointerdown", nearest);
  // On the panel: an SVG element that listens for the focus would itself take it in some browsers.
  panel.addEventListener("focusin", event => select(event.target, false));
  panel.addEventListener("keydown", event => {
    if (!(event.key in STEPS) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const to = Math.max(0, Math.min(points.length - 1, points.indexOf(event.target) + STEPS[event.key]));
    select(points[to], true);
  });
}
for (const control of [plane, task, method]) control.addEventListener("input", show);
for (const hidden of figure.querySelectorAll(":scope > [hidden]")) hidden.hidden = false;
show();
}""".replace("LARGE", str(LARGE)).replace("SMALL", str(SMALL))


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
    """Plots of all points by plane and task, with lists to choose plane, task and method; hover, tap or arrow keys tell a setting.

    Without JavaScript every plot is there, a mouse still finds the settings, and the points on the fronts are in a table.

    Args:
        key: a name of its own in the page: letters, digits and hyphens, a letter first.
        points: one row a fit: columns ``task`` and ``method``, and those that the other arguments name. Measures are
            best at 0.
        planes: name of the plane -> columns of its horizontal and its vertical axis.
        measures: column -> what it is, with its unit: axis labels, and what a point tells.
        settings: column -> symbol, of the settings that a point tells.
        colors: method -> colour.
        caption: under the plots.
        how: what to look for, added to the folded line on how to use the plots.

    Raises:
        ValueError: no points, a column that is missing, a value that is not a finite number, a method without a
            colour or more than four, or a key that cannot name an element.
    """
    check_key(key)
    _check(points, planes, measures, settings, colors)
    tasks = list(dict.fromkeys(points["task"]))
    panels, front = [], []
    for task in tasks:
        part = points[points["task"] == task]
        for plane, columns in planes.items():
            plot = front_plot(
                part,
                f"{task}, {plane}",
                columns,
                measures=measures,
                settings=settings,
                colors=colors,
            )
            panels.append(
                f'<div class="explorer-panel" data-plane="{escape(plane)}" data-task="{escape(task)}">{plot}</div>'
            )
            front.append(part[on_front(part, columns)].assign(plane=plane))
    chosen = {"Plane": list(planes), "Task": tasks, "Method": [ALL, *colors]}
    options = {
        name: "".join(f"<option>{escape(value)}</option>" for value in values)
        for name, values in chosen.items()
    }
    shown = pd.concat(front)[["task", "plane", "method", *settings, *measures]].rename(
        columns={**settings, **measures}
    )
    return HTML(
        TEMPLATE.format(
            key=key,
            controls="\n".join(
                SELECT.format(id=f"{key}-{name.lower()}", label=name, options=options[name])
                for name in chosen
            ),
            legend=" ".join(
                f"{symbol(shape, color)} {escape(method)}"
                for shape, (method, color) in zip(SHAPES, colors.items())
            ),
            panels="\n".join(panels),
            caption=escape(caption),
            how=escape(how),
            table=shown.map(number).to_html(index=False, border=0),
            script=SCRIPT,
        )
    )


def _check(
    points: pd.DataFrame, planes: Mapping, measures: Mapping, settings: Mapping, colors: Mapping
) -> None:
    needed = ["task", "method", *measures, *settings]
    if missing := [name for name in needed if name not in points]:
        raise ValueError(
            f"the table has no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, points.columns))}."
        )
    if missing := {column for pair in planes.values() for column in pair} - set(measures):
        raise ValueError(
            f"measures says nothing of {', '.join(map(repr, sorted(missing)))}, which a plane shows."
        )
    if points.empty or not planes:
        raise ValueError(
            f"{len(points)} points and {len(planes)} planes: there is nothing to show."
        )
    if not np.isfinite(points[list(measures)].to_numpy(float)).all():
        raise ValueError(
            "every measure must be a finite number: leave out the settings that failed."
        )
    if missing := set(points["method"]) - set(colors):
        raise ValueError(f"colors has none for {', '.join(map(repr, sorted(missing)))}.")
    if len(colors) > len(SHAPES):
        raise ValueError(f"{len(colors)} methods, and there are shapes for {len(SHAPES)} at most.")
