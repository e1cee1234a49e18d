"""Figures: labels that must match, a map centred at zero, and the crossing where it really is."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("Agg")

from helpers.figures.plots import beta_curves, heat_map, show_token  # noqa: E402

pytestmark = pytest.mark.unit


def test_a_map_is_centred_at_zero_and_shows_the_first_row_at_the_bottom():
    ax = heat_map(torch.tensor([[1.0, -3.0], [0.5, 2.0]]), columns=["a", " b"], label="α")
    image = ax.images[0]
    assert image.get_clim() == (-3.0, 3.0)
    assert image.origin == "lower"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["a", "␣b"]


@pytest.mark.parametrize(("columns", "rows"), [(["a"], None), (["a", "b"], ["x"])])
def test_labels_that_do_not_match_are_refused(columns, rows):
    with pytest.raises(ValueError, match="for"):
        heat_map(torch.zeros(2, 2), columns=columns, rows=rows, label="α")


@pytest.mark.parametrize("slope", [1.0, -1.0])
def test_the_ring_stands_where_the_lines_cross_and_nowhere_else(slope):
    betas = np.linspace(-2, 2, 9)
    ax = beta_curves(
        betas, {"a": slope * (betas - 0.3), "b": 0 * betas, "c": 0 * betas + 9}, crossing=("a", "b")
    )
    rings = [line.get_xydata()[0] for line in ax.lines if line.get_markersize() == 11]
    assert np.allclose(rings, [[0.3, 0.0]])
    assert not [
        line
        for line in beta_curves(betas, {"a": betas, "c": betas + 9}, crossing=("a", "c")).lines
        if line.get_markersize() == 11
    ]


def test_tokens_show_their_spaces_and_start_no_formula():
    assert show_token(" a\n$") == "␣a⏎\\$"
