"""Plots: scales, lines and points stand where the values say."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

matplotlib.use("Agg")

from helpers.figures import plots

pytestmark = pytest.mark.unit
VALUES = torch.tensor([[1.0, -3.0], [0.5, 2.0]])


def lines(ax: Axes) -> list[list[list[float]]]:
    return [line.get_xydata().tolist() for line in ax.lines]


def test_a_map_is_centred_at_zero_and_shows_the_first_row_at_the_bottom():
    ax = plots.heat_map(VALUES, columns=["a", " b"], label="α")
    image = ax.images[0]
    assert image.get_clim() == (-3.0, 3.0) and image.origin == "lower"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["a", "␣b"]


@pytest.mark.parametrize(("columns", "rows"), [(["a"], None), (["a", "b"], ["x"])])
def test_labels_that_do_not_match_are_refused(columns, rows):
    with pytest.raises(ValueError):
        plots.heat_map(torch.zeros(2, 2), columns=columns, rows=rows, label="α")


def test_signed_maps_of_heads_are_centred_at_zero_and_sizes_start_there():
    signed = plots.head_map(VALUES, label="nats", signed=True).images[0]
    assert signed.get_clim() == (-3.0, 3.0) and signed.origin == "lower"
    assert plots.head_map(VALUES.abs(), label="nats").images[0].get_clim() == (0.0, 3.0)


@pytest.mark.parametrize("slope", [1.0, -1.0])
def test_the_ring_stands_where_the_lines_cross_and_nowhere_else(slope):
    betas = np.linspace(-2, 2, 9)
    curves = {"a": slope * (betas - 0.3), "b": 0 * betas, "c": 0 * betas + 9}
    for crossing, expected in ((("a", "b"), [[0.3, 0.0]]), (("a", "c"), [])):
        ax = plots.beta_curves(betas, curves, crossing=crossing)
        rings = [line.get_xydata()[0] for line in ax.lines if line.get_markersize() == 11]
        assert np.allclose(rings, expected)


def test_norms_are_drawn_in_order_with_their_band():
    names = [f"blocks.{i}.ln1" for i in range(12)]
    band = np.stack([np.arange(12) - 1, np.arange(12) + 1])
    ax = plots.over_norms(names, {"a": np.arange(12)}, bands={"a": band}, ylabel="x")
    assert ax.lines[0].get_ydata().tolist() == list(range(12))
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0.ln1", "10.ln1"]
    assert len(ax.collections) == 1


def test_the_line_of_an_exact_forecast_is_the_diagonal():
    ax = plots.against_forecast([0, 1], [2, -1], xlabel="a", ylabel="b", named={"26.2": 1})
    assert lines(ax) == [[[-1, -1], [2, 2]]]
    assert ax.texts[0].get_text() == "26.2" and ax.texts[0].xy == (1, -1)


def test_readings_are_coloured_by_group_and_lines_span_them():
    a = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    first = torch.tensor([True, False])
    groups, fit = {"x": first, "y": ~first}, {"fit": (2.0, 0.5)}
    ax = plots.two_readings(a, 2 * a, groups=groups, lines=fit, xlabel="a", ylabel="b")
    points = [points.get_offsets().tolist() for points in ax.collections]
    assert points == [[[0, 0], [1, 2]], [[2, 4], [3, 6]]]
    assert lines(ax) == [[[0, 0.5], [3, 6.5]]]


def test_nothing_added_changes_nothing():
    change = torch.tensor([[-1.0, 0.125], [2.0, 0.25]])  # [amount direction]
    ax = plots.steering_curve([-1, 1], change, low=[-1.5, 1.0], high=[-0.5, 3.0], slope=4.0)
    own, *_, line, control = lines(ax)
    assert own == [[-1, -1], [0, 0], [1, 2]]
    assert line == [[-1, -4], [0, 0], [1, 4]]
    assert control == [[-1, 0.125], [0, 0], [1, 0.25]]


def test_tokens_show_their_spaces_and_start_no_formula():
    assert plots.show_token(" a\n$") == "␣a⏎\\$"
