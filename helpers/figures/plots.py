"""Plots that chapters share.

Each draws on ``ax``, or on new axes if none is given, and returns the axes; showing is left to the
page. A label is the quantity with its unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from torch import Tensor

# Told apart with every common kind of colour blindness; kept for the two answers in all chapters.
CORRECT, WRONG, OTHER = "#0072B2", "#D55E00", "#7f7f7f"
MARKERS = "os^Dv"  # by shape as well as by colour


def use_style() -> None:
    """The book's style; called once, in a chapter's set-up cell."""
    rc = {"figure.dpi": 110, "axes.titlesize": "medium", "figure.constrained_layout.use": True}
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", rc=rc)


def as_array(values: ArrayLike | Tensor) -> np.ndarray:
    """Numbers as an array; a tensor is detached and copied to the CPU."""
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)


def show_token(text: str) -> str:
    """A token with space and line break made visible, and $ escaped for matplotlib."""
    return text.replace(" ", "␣").replace("\n", "⏎").replace("$", r"\$")


def heat_map(
    values: Float[Tensor, "row column"],
    *,
    columns: Sequence[str],
    rows: Sequence[str] | None = None,
    label: str,
    limit: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Signed values on a diverging map centred at zero: red above, blue below.

    Args:
        values: the first row is drawn at the bottom, as layers are stacked.
        columns, rows: tick labels, such as tokens; rows are numbered if there are none.
        limit: end of the colour scale; the largest magnitude if not given.
    """
    values = as_array(values)
    if ax is None:
        size = max(4, 0.42 * len(columns) + 1.5), max(2.5, 0.13 * len(values) + 1.5)
        ax = plt.subplots(figsize=size)[1]
    draw_cells(ax, values, label=label, limit=limit)
    ticks = [show_token(text) for text in columns]
    ax.set_xticks(range(values.shape[1]), ticks, rotation=60, ha="right", fontsize="small")
    if rows is not None:
        ax.set_yticks(range(len(values)), rows, fontsize="small")
    ax.set_ylabel("layer")
    return ax


def head_map(
    values: Float[Tensor, "layer head"],
    *,
    label: str,
    title: str = "",
    signed: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """One cell a head; the colour map is centred at zero if ``signed``, else it starts there."""
    ax = ax or plt.subplots(figsize=(3.5, 4))[1]
    draw_cells(ax, as_array(values), label=label, signed=signed)
    ax.set(title=title, xlabel="head", ylabel="layer")
    for axis in (ax.xaxis, ax.yaxis):
        axis.get_major_locator().set_params(integer=True)  # there is no head 2.5
    return ax


def draw_cells(
    ax: Axes,
    values: Float[np.ndarray, "row column"],
    *,
    label: str,
    signed: bool = True,
    limit: float | None = None,
) -> None:
    """Cells and their colour bar, as in :func:`head_map`."""
    limit = limit or float(np.abs(values).max()) or 1.0
    colours = {"cmap": "RdBu_r", "vmin": -limit} if signed else {"cmap": "viridis", "vmin": 0}
    cells = {"origin": "lower", "aspect": "auto", "interpolation": "nearest"}
    image = ax.imshow(values, vmax=limit, **cells, **colours)
    ax.grid(False)
    ax.figure.colorbar(image, ax=ax, label=label)


def beta_curves(
    betas: Sequence[float],
    curves: Mapping[str, Float[Tensor, " beta"]],
    *,
    colors: Mapping[str, str] | None = None,
    crossing: tuple[str, str] | None = None,
    ylabel: str = "logit (nats)",
    ax: Axes | None = None,
) -> Axes:
    """One line a quantity over the strength β, with β = −1, 0 and 1 marked.

    A ring marks where the two lines named by ``crossing`` cross, by linear interpolation. ``betas``
    ascend; curves and colours are given by the line's name.
    """
    ax = ax or plt.subplots(figsize=(5, 3.2))[1]
    drawn = {name: as_array(values) for name, values in curves.items()}
    for (name, y), marker in zip(drawn.items(), 3 * MARKERS):
        ax.plot(betas, y, f"{marker}-", label=name, color=(colors or {}).get(name), markersize=4)
    # A ring where two of them cross
    if crossing is not None:
        first, second = (drawn[name] for name in crossing)
        gap = first - second
        ring = {"marker": "o", "markersize": 11, "markerfacecolor": "none"}
        text = {"textcoords": "offset points", "ha": "center", "fontsize": "x-small"}
        for i in np.flatnonzero(np.diff(np.sign(gap))):
            share = gap[i] / (gap[i] - gap[i + 1])
            beta = betas[i] + share * (betas[i + 1] - betas[i])
            height = first[i] + share * (first[i + 1] - first[i])
            ax.plot(beta, height, markeredgecolor="black", **ring)
            ax.annotate(f"β = {beta:.2f}", (beta, height), xytext=(0, -18), **text)
    for beta in (-1, 0, 1):
        ax.axvline(beta, color="0.6", linewidth=0.8, linestyle="--" if beta else "-", zorder=0)
    ax.set(xlabel="strength β", ylabel=ylabel)
    ax.legend(fontsize="small")
    return ax


def over_norms(
    names: Sequence[str],
    lines: Mapping[str, Float[ArrayLike, " norm"]],
    *,
    styles: Mapping[str, Mapping] | None = None,
    bands: Mapping[str, Float[ArrayLike, "2 norm"]] | None = None,
    ylabel: str,
    ax: Axes | None = None,
) -> Axes:
    """One line a name over the norms of a model, in its order; every tenth norm is labelled.

    Args:
        names: of the norms, as in ``blocks.3.ln1``.
        lines: by name, as ``styles`` (arguments of ``Axes.plot``) and ``bands`` (lower and upper
            ends).
    """
    ax = ax or plt.subplots(figsize=(7.5, 3.5))[1]
    for label, values in lines.items():
        (line,) = ax.plot(as_array(values), label=label, **(styles or {}).get(label, {}))
        if label in (bands or {}):
            low, high = as_array(bands[label])
            ax.fill_between(range(len(names)), low, high, color=line.get_color(), alpha=0.25)
    ticks = range(0, len(names), 10)
    ax.set_xticks(ticks, [names[i].removeprefix("blocks.") for i in ticks])
    ax.set(ylabel=ylabel, xlabel="norm: layer, and ln1 (attention) or ln2 (MLP)")
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
    """Measured values over their forecasts, with the diagonal.

    Args:
        values: the points' colours, on viridis; the page adds the colour bar.
        named: points to label, by index.
    """
    forecast, measured = as_array(forecast), as_array(measured)
    ax = ax or plt.subplots(figsize=(5, 4))[1]
    colours = {"color": CORRECT} if values is None else {"c": as_array(values), "cmap": "viridis"}
    ax.scatter(forecast, measured, s=14, **colours)
    ends = [min(forecast.min(), measured.min()), max(forecast.max(), measured.max())]
    ax.plot(ends, ends, color=OTHER, linewidth=1)
    text = {"textcoords": "axes fraction", "ha": "right", "fontsize": "x-small", "color": WRONG}
    arrow = {"arrowstyle": "-", "color": WRONG, "linewidth": 0.6}
    for number, (name, i) in enumerate((named or {}).items()):
        # One under the other in the corner where forecasts are seldom so wrong: points lie close.
        corner = (0.97, 0.3 - 0.07 * number)
        ax.annotate(name, (forecast[i], measured[i]), xytext=corner, arrowprops=arrow, **text)
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
    """Dot products b with one feature vector over a with another, a point a token.

    Args:
        groups: prompts with a colour of their own, by name; at most two groups.
        lines: slope and intercept, by name; the first is solid, the others dashed.
    """
    a, b = as_array(a), as_array(b)
    ax = ax or plt.subplots(figsize=(6, 3.4))[1]
    for (label, prompts), color, marker in zip(groups.items(), (CORRECT, WRONG), MARKERS):
        rows = as_array(prompts)
        ax.scatter(a[rows], b[rows], s=8, color=color, marker=marker, alpha=0.5, label=label)
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
    """Mean change of an observable over the multiple of a vector added, its gradient, and controls.

    Args:
        amounts: multiples, ascending, without 0, where the change is 0.
        change: mean change; the first direction is the vector's, the others are random.
        low, high: interval of the first direction's change.
        slope: of the gradient's line.
    """
    ax = ax or plt.subplots(figsize=(5, 3.6))[1]
    zero = int(np.searchsorted(amounts, 0))
    x = np.insert(np.asarray(amounts, dtype=float), zero, 0)
    own, *controls = (np.insert(column, zero, 0) for column in as_array(change).T)
    below = own - np.insert(as_array(low), zero, 0)
    above = np.insert(as_array(high), zero, 0) - own
    look = {"color": CORRECT, "marker": "o", "markersize": 4}
    ax.errorbar(x, own, yerr=np.stack([below, above]), label="feature vector", **look)
    look = {"color": "black", "linewidth": 1, "linestyle": "--"}
    ax.plot(x, slope * x, label="straight line (gradient)", **look)
    for number, values in enumerate(controls):
        ax.plot(x, values, color=OTHER, marker=".", label=None if number else "random directions")
    return ax
