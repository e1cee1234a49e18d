"""Figures of feature vectors: one value a head, one value a norm, and what two vectors read. Each returns Axes and never shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from torch import Tensor

from helpers.figures.plots import CORRECT, OTHER, WRONG, as_array, draw_cells


def head_map(
    values: Float[Tensor, "layer head"],
    *,
    label: str,
    title: str = "",
    signed: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """One cell a head, the first layer at the bottom: signed values on a map centred at zero, sizes on one that starts there.

    Args:
        values: one a head.
        label: what the values are, with their unit; beside the colour bar.
        title: of the map.
        signed: whether values below zero mean something.
        ax: where to draw; new axes if not given.
    """
    ax = ax or plt.subplots(figsize=(3.5, 4))[1]
    draw_cells(ax, as_array(values), label=label, signed=signed)
    ax.set(title=title, xlabel="head", ylabel="layer")
    for axis in (ax.xaxis, ax.yaxis):
        axis.get_major_locator().set_params(integer=True)  # there is no head 2.5
    return ax


def over_norms(
    names: Sequence[str],
    lines: Mapping[str, Float[ArrayLike, " norm"]],
    *,
    styles: Mapping[str, Mapping] | None = None,
    bands: Mapping[str, Float[ArrayLike, "2 norm"]] | None = None,
    ylabel: str,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """One line a name over the norms of a model, in its order; every tenth norm is labelled.

    Args:
        names: of the norms, ``blocks.3.ln1``.
        lines: values, one a norm.
        styles: arguments of ``Axes.plot``, by the line's name.
        bands: lower and upper ends around a line, by its name.
        ylabel: what the values are, with their unit.
        title: of the axes.
        ax: where to draw; new axes if not given.
    """
    ax = ax or plt.subplots(figsize=(7.5, 3.5))[1]
    for label, values in lines.items():
        (line,) = ax.plot(as_array(values), label=label, **(styles or {}).get(label, {}))
        if label in (bands or {}):
            ax.fill_between(
                range(len(names)), *as_array(bands[label]), color=line.get_color(), alpha=0.25
            )
    ticks = range(0, len(names), 10)
    ax.set_xticks(ticks, [names[i].removeprefix("blocks.") for i in ticks])
    ax.set(ylabel=ylabel, xlabel="norm: layer, and ln1 (attention) or ln2 (MLP)", title=title)
    ax.legend(fontsize="x-small")
    return ax


def against_forecast(
    forecast: Float[ArrayLike, " point"],
    measured: Float[ArrayLike, " point"],
    *,
    xlabel: str,
    ylabel: str,
    values: Float[ArrayLike, " point"] | None = None,
    named: Mapping[str, int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Measured values over their forecasts, with the line on which the two are equal.

    Args:
        forecast, measured: one a point.
        xlabel, ylabel: what they are, with their unit.
        values: what the points are coloured by, on viridis; the colour bar is the page's.
        named: points to name, by their number.
        ax: where to draw; new axes if not given.
    """
    forecast, measured = as_array(forecast), as_array(measured)
    ax = ax or plt.subplots(figsize=(5, 4))[1]
    colours = {"color": CORRECT} if values is None else {"c": as_array(values), "cmap": "viridis"}
    ax.scatter(forecast, measured, s=14, **colours)
    ends = [min(forecast.min(), measured.min()), max(forecast.max(), measured.max())]
    ax.plot(ends, ends, color=OTHER, linewidth=1)
    for number, (name, i) in enumerate((named or {}).items()):
        # In the corner where forecasts are seldom so wrong, one under the other: the points may lie close together.
        place = {
            "xytext": (0.97, 0.3 - 0.07 * number),
            "textcoords": "axes fraction",
            "ha": "right",
        }
        line = {"arrowstyle": "-", "color": WRONG, "linewidth": 0.6}
        ax.annotate(
            name,
            (forecast[i], measured[i]),
            fontsize="x-small",
            color=WRONG,
            arrowprops=line,
            **place,
        )
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return ax


def two_readings(
    a: Float[Tensor, "prompt pos"],
    b: Float[Tensor, "prompt pos"],
    *,
    groups: Mapping[str, Bool[Tensor, " prompt"]],
    lines: Mapping[str, tuple[float, float]],
    xlabel: str,
    ylabel: str,
    ax: Axes | None = None,
) -> Axes:
    """What one vector reads over what another reads, a point a token, and straight lines through them.

    Args:
        a, b: what the two vectors read.
        groups: prompts that get a colour of their own, by name; two groups at most.
        lines: slope and intercept, by name; the first is drawn solid, others dashed.
        xlabel, ylabel: what a and b are, with their unit.
        ax: where to draw; new axes if not given.
    """
    a, b = as_array(a), as_array(b)
    ax = ax or plt.subplots(figsize=(6, 3.4))[1]
    for (label, which), color in zip(groups.items(), (CORRECT, WRONG)):
        ax.scatter(a[as_array(which)], b[as_array(which)], s=6, color=color, alpha=0.5, label=label)
    ends = np.array([a.min(), a.max()])
    for number, (label, (slope, intercept)) in enumerate(lines.items()):
        style = {"color": OTHER, "linestyle": "--"} if number else {"color": "black"}
        ax.plot(ends, slope * ends + intercept, linewidth=1, label=label, **style)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend(fontsize="x-small")
    return ax


def steering_curve(
    amounts: Sequence[float],
    change: Float[Tensor, "amount direction"],
    *,
    low: Float[ArrayLike, " amount"],
    high: Float[ArrayLike, " amount"],
    slope: float,
    ax: Axes | None = None,
) -> Axes:
    """Mean change of an observable over how much of a vector is added, the straight line of its gradient, and controls.

    Args:
        amounts: what is added, ascending, without 0: nothing added, nothing changed.
        change: mean change; the first direction is the vector's, the others are random.
        low, high: interval of the first direction's.
        slope: of the straight line.
        ax: where to draw; new axes if not given.
    """
    ax = ax or plt.subplots(figsize=(5, 3.6))[1]
    at = int(np.searchsorted(amounts, 0))
    x = np.insert(np.asarray(amounts, dtype=float), at, 0)
    own, *controls = (np.insert(column, at, 0) for column in as_array(change).T)
    reach = np.stack(
        [own - np.insert(as_array(low), at, 0), np.insert(as_array(high), at, 0) - own]
    )
    ax.errorbar(x, own, yerr=reach, color=CORRECT, marker="o", markersize=4, label="feature vector")
    ax.plot(
        x, slope * x, color="black", linewidth=1, linestyle="--", label="straight line (gradient)"
    )
    for number, values in enumerate(controls):
        ax.plot(x, values, color=OTHER, marker=".", label=None if number else "random directions")
    return ax
