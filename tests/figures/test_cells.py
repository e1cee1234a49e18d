"""Cells of maps in a page: where they lie in the saved picture, and what they hold."""

from __future__ import annotations

import io
import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from IPython.core.pylabtools import print_figure

from helpers.figures.cells import readable
from helpers.figures.plots import head_map, heat_map

pytestmark = pytest.mark.unit


def read(figure, **options) -> list[dict]:
    return json.loads(BeautifulSoup(readable(figure, **options).data, "html.parser").script.string)


def saved(figure) -> np.ndarray:
    """The picture as a notebook saves it, [height width colour]."""
    return plt.imread(io.BytesIO(print_figure(figure, "png")))


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("row, column", [(0, 0), (4, 2)])
@pytest.mark.slow
def test_a_cell_lies_where_the_saved_picture_shows_it(
    constrained: bool, row: int, column: int
) -> None:
    with plt.rc_context({"figure.constrained_layout.use": constrained}):
        figure, axes = plt.subplots(1, 2, figsize=(8, 3))
        hot = torch.full((5, 3), -1.0)
        hot[row, column] = 1.0  # the only red cell of the figure's right half
        heat_map(-torch.ones(5, 3), columns=["a", " b", "c"], label="α", ax=axes[0])
        heat_map(hot, columns=["a", " b", "c"], label="α", ax=axes[1])
        axes[1].figure.axes[-1].set_visible(False)  # its colour bar is red at one end too
        picture = saved(figure)
        plt.close(figure)  # as a notebook does before its next cell
        _, found = read(figure)
    red = (picture[..., 0] > 0.3) & (picture[..., 1:3] < 0.2).all(-1)
    red[:, : red.shape[1] // 2] = False
    height, width = red.shape
    seen = np.argwhere(red)
    left, top, wide, high = found["place"]
    from_top = 4 - row
    assert seen[:, 1].min() / width == pytest.approx(left + wide * column / 3, abs=2.5 / width)
    assert seen[:, 0].min() / height == pytest.approx(top + high * from_top / 5, abs=2.5 / height)
    assert (seen[:, 1].max() + 1) / width == pytest.approx(
        left + wide * (column + 1) / 3, abs=2.5 / width
    )
    assert found["values"][from_top][column] == 1 and found["values"][0][1] == -1


def test_columns_are_tokens_with_their_position_in_the_prompt() -> None:
    figure, axes = plt.subplots(2, 1, sharex=True)
    for ax in axes:
        heat_map(torch.tensor([[0.12345, -2.0]]), columns=["$x$", " </b>"], label="nats", ax=ax)
        ax.set_title("a map")
    for found in read(figure, first_position=4):
        assert found["tokens"] == ["$x$", "␣</b>"] and found["first"] == 4
        assert found["values"] == [[0.123, -2.0]] and found["title"] == "a map"
        assert found["label"] == "nats" and found["column"] == "position"
    assert "</b>" not in readable(figure).data.removesuffix("</script>")


def test_columns_of_a_head_map_are_heads() -> None:
    found = read(head_map(torch.rand(4, 9), label="‖y‖").figure, first_position=4)
    assert found[0]["column"] == "head" and found[0]["first"] == 0 and not found[0]["tokens"]


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match="no map"):
        readable(plt.figure())
    holed = heat_map(torch.tensor([[1.0, 2.0]]), columns=["a", "b"], label="α")
    holed.images[0].set_data([[1.0, np.nan]])
    with pytest.raises(ValueError, match="finite"):
        readable(holed.figure)
    nameless = head_map(torch.rand(4, 9), label="‖y‖")
    nameless.set_xlabel("")
    with pytest.raises(ValueError, match="name a map's columns"):
        readable(nameless.figure)
