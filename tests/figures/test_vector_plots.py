"""Figures of feature vectors: scales, lines and points stand where the values say."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("Agg")

from helpers.figures.vector_plots import (  # noqa: E402
    against_forecast,
    head_map,
    over_norms,
    steering_curve,
    two_readings,
)

pytestmark = pytest.mark.unit


def test_signed_maps_are_centred_at_zero_and_sizes_start_there():
    values = torch.tensor([[1.0, -3.0], [0.5, 2.0]])
    signed = head_map(values, label="nats", signed=True).images[0]
    assert signed.get_clim() == (-3.0, 3.0) and signed.origin == "lower"
    assert head_map(values.abs(), label="nats").images[0].get_clim() == (0.0, 3.0)


def test_norms_are_drawn_in_order_with_their_band():
    names = [f"blocks.{i}.ln1" for i in range(12)]
    ax = over_norms(
        names,
        {"a": np.arange(12)},
        bands={"a": np.stack([np.arange(12) - 1, np.arange(12) + 1])},
        ylabel="x",
    )
    assert ax.lines[0].get_ydata().tolist() == list(range(12))
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0.ln1", "10.ln1"]
    assert len(ax.collections) == 1


def test_the_line_of_an_exact_forecast_is_the_diagonal():
    ax = against_forecast([0.0, 1.0], [2.0, -1.0], xlabel="a", ylabel="b", named={"26.2": 1})
    assert ax.lines[0].get_xydata().tolist() == [[-1, -1], [2, 2]]
    assert ax.texts[0].get_text() == "26.2" and ax.texts[0].xy == (1.0, -1.0)


def test_readings_are_coloured_by_group_and_lines_span_them():
    a = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    first = torch.tensor([True, False])
    ax = two_readings(
        a,
        2 * a,
        groups={"x": first, "y": ~first},
        lines={"fit": (2.0, 0.5)},
        xlabel="a",
        ylabel="b",
    )
    assert [points.get_offsets().tolist() for points in ax.collections] == [
        [[0, 0], [1, 2]],
        [[2, 4], [3, 6]],
    ]
    assert ax.lines[0].get_xydata().tolist() == [[0, 0.5], [3, 6.5]]


def test_nothing_added_changes_nothing():
    change = torch.tensor([[-1.0, 0.1], [2.0, 0.2]])  # [amount direction]
    ax = steering_curve([-1, 1], change, low=[-1.5, 1.0], high=[-0.5, 3.0], slope=4.0)
    own, line, control = (ax.lines[i].get_xydata().tolist() for i in (0, -2, -1))
    assert own == [[-1, -1], [0, 0], [1, 2]]
    assert line == [[-1, -4], [0, 0], [1, 4]]
    assert np.allclose(control, [[-1, 0.1], [0, 0], [1, 0.2]])
