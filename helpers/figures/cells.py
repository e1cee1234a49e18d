"""What the cells of a drawn map hold, for a published page: layer, position, token and value.

The figure stays the output of its notebook cell. :func:`readable`, in the next cell, puts data into
the page that nothing shows by itself; ``maps.js`` reads it and lays a frame over the picture, which
says what the cell under the pointer, the finger or the arrow keys holds.
"""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import Bbox

DIGITS = 3  # significant ones of a value


def readable(figure: Figure, *, first_position: int = 0) -> HTML:
    """Data of every map in a figure, as the value of the notebook cell after the one that draws it.

    (In the same cell it would get the figure's caption a second time.)

    Args:
        figure: drawn by ``helpers.figures.plots.heat_map`` or ``head_map``, finished.
        first_position: position of the first column in the prompt, where columns are tokens.

    Returns:
        HTML without anything visible: for each map its place in the picture, as shares of the
        picture's width and height; its values, the top row first; and what its columns are.

    Raises:
        ValueError: the figure has no map, or a map has a value that is not finite or columns
            without a name.
    """
    picture = picture_box(figure)
    maps = [_map(axes, picture, first_position) for axes in figure.axes if _is_map(axes)]
    if not maps:
        raise ValueError("the figure has no map: draw one with heat_map or head_map first.")
    # Inside a script element no "<" may open a tag.
    data = json.dumps(maps, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return HTML(f'<script type="application/json" class="map-cells">{data}</script>')


def picture_box(figure: Figure) -> Bbox:
    """What a notebook saves of a figure, in inches: the drawn part and a margin."""
    canvas = FigureCanvasAgg(figure)  # a figure that a notebook has shown has lost its own
    canvas.draw()  # the layout is settled now
    box = figure.get_tightbbox(canvas.get_renderer())
    return box.padded(plt.rcParams["savefig.pad_inches"])


def place_of(axes: Axes, picture: Bbox) -> list[float]:
    """Left, top, width and height of axes, as shares of the picture."""
    box = axes.get_window_extent().transformed(axes.figure.dpi_scale_trans.inverted())
    left, top = (box.x0 - picture.x0) / picture.width, (picture.y1 - box.y1) / picture.height
    size = box.width / picture.width, box.height / picture.height
    return [round(float(share), 4) for share in (left, top, *size)]


def _is_map(axes: Axes) -> bool:
    return any(image.colorbar is not None for image in axes.images)


def _map(axes: Axes, picture: Bbox, first_position: int) -> dict:
    image = next(image for image in axes.images if image.colorbar is not None)
    values = np.asarray(image.get_array(), dtype=float)  # the first row is drawn at the bottom
    if not np.isfinite(values).all():
        raise ValueError(
            "a map's values must be finite to be read out: mask or replace the others."
        )
    column, tokens = axes.get_xlabel(), []
    if not column:  # the columns are tokens
        column, named = "position", axes.xaxis.get_major_formatter()
        if isinstance(named, FuncFormatter):  # labels that were given
            tokens = named.format_ticks(range(values.shape[1]))
        if not tokens or not all(tokens):
            raise ValueError(
                "name a map's columns: by a tick label each, or by the label of the x axis."
            )
    rounded = np.vectorize(lambda value: float(f"{value:.{DIGITS}g}"))(values[::-1])
    return {
        "place": place_of(axes, picture),
        "title": axes.get_title(),
        "label": image.colorbar.ax.get_ylabel() or image.colorbar.ax.get_title(),
        "column": column,
        "first": first_position if tokens else 0,
        "tokens": [token.replace(r"\$", "$") for token in tokens],
        "values": rounded.tolist(),
    }
