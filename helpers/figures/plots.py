"""Figures that more than one chapter draws. Each returns Axes and leaves showing to the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from jaxtyping import Float
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from torch import Tensor

# Two colours that stay apart for every common kind of colour blindness, kept for the two answers throughout the book.
CORRECT, WRONG, OTHER = "#0072B2", "#D55E00", "#7f7f7f"


def use_style() -> None:
    """The book's one style; call it once in a chapter's set-up cell."""
    sns.set_theme(
        context="notebook",
        style="whitegrid",
        palette="colorblind",
        rc={"figure.dpi": 110, "axes.titlesize": "medium", "figure.constrained_layout.use": True},
    )


def heat_map(
    values: Float[Tensor, "row column"],
    *,
    columns: Sequence[str],
    rows: Sequence[str] | None = None,
    label: str,
    limit: float | None = None,
    row_label: str = "layer",
    ax: Axes | None = None,
) -> Axes:
    """Signed values on a diverging map centred at zero: red above, blue below.

    Args:
        values: first row is drawn at the bottom, as layers are stacked.
        columns: a label a column, e.g. the prompt's tokens; drawn as they are, with spaces shown as ␣.
        rows: a label a row; numbers if not given.
        label: what the values are, with their unit.
        limit: end of the colour scale; the largest magnitude if not given.
        row_label: what rows are.
        ax: where to draw; new axes if not given.

    Raises:
        ValueError: labels that do not match the values.
    """
    values = as_array(values)
    if (
        values.ndim != 2
        or values.shape[1] != len(columns)
        or (rows is not None and values.shape[0] != len(rows))
    ):
        raise ValueError(
            f"values of shape {values.shape} for {len(columns)} columns and {len(rows or values)} rows."
        )
    ax = (
        ax
        or plt.subplots(
            figsize=(max(4, 0.42 * len(columns) + 1.5), max(2.5, 0.13 * len(values) + 1.5))
        )[1]
    )
    draw_cells(ax, values, label=label, limit=limit)
    ax.set_xticks(
        range(len(columns)),
        [show_token(text) for text in columns],
        rotation=60,
        ha="right",
        fontsize="small",
    )
    if rows is not None:
        ax.set_yticks(range(len(rows)), rows, fontsize="small")
    ax.set_ylabel(row_label)
    return ax


def draw_cells(
    ax: Axes,
    values: Float[np.ndarray, "row column"],
    *,
    label: str,
    signed: bool = True,
    limit: float | None = None,
) -> None:
    """Cells and their colour bar, the first row at the bottom: signed values on a map centred at zero, sizes on one that starts there.

    Args:
        ax: where to draw.
        values: one a cell.
        label: what the values are, with their unit.
        signed: whether values below zero mean something.
        limit: end of the colour scale; the largest magnitude if not given.
    """
    limit = limit or float(np.abs(values).max()) or 1.0
    colours = {"cmap": "RdBu_r", "vmin": -limit} if signed else {"cmap": "viridis", "vmin": 0}
    image = ax.imshow(
        values, origin="lower", aspect="auto", interpolation="nearest", vmax=limit, **colours
    )
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

    Args:
        betas: strengths, ascending.
        curves: a line a name.
        colors: of the lines, by name.
        crossing: two names; a ring marks each place where their lines cross, by linear interpolation.
        ylabel: what the curves are, with their unit.
        ax: where to draw; new axes if not given.
    """
    ax = ax or plt.subplots(figsize=(5, 3.2))[1]
    drawn = {name: as_array(values) for name, values in curves.items()}
    for name, values in drawn.items():
        ax.plot(betas, values, label=name, color=(colors or {}).get(name), marker=".", markersize=4)
    if crossing is not None:
        gap = drawn[crossing[0]] - drawn[crossing[1]]
        for i in np.flatnonzero(np.diff(np.sign(gap))):
            beta = float(
                np.interp(
                    0,
                    np.sort(gap[i : i + 2]),
                    np.asarray(betas)[i : i + 2][np.argsort(gap[i : i + 2])],
                )
            )
            height = float(np.interp(beta, betas, drawn[crossing[0]]))
            ax.plot(
                beta,
                height,
                marker="o",
                markersize=11,
                markerfacecolor="none",
                markeredgecolor="black",
            )
            ax.annotate(
                f"β = {beta:.2f}",
                (beta, height),
                xytext=(0, -18),
                textcoords="offset points",
                ha="center",
                fontsize="x-small",
            )
    for beta in (-1, 0, 1):
        ax.axvline(beta, color="0.6", linewidth=0.8, linestyle="--" if beta else "-", zorder=0)
    ax.set_xlabel("strength β")
    ax.set_ylabel(ylabel)
    ax.legend(fontsize="small")
    return ax


def as_array(values: ArrayLike | Tensor) -> np.ndarray:
    """Numbers of any kind as an array; a tensor's without its gradient, from whatever device."""
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)


def show_token(text: str) -> str:
    """A token with its leading space and line breaks made visible; $ escaped, which would start maths."""
    return text.replace(" ", "␣").replace("\n", "⏎").replace("$", r"\$")
