"""The likeliest tokens, in words and as bars."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch

from helpers.figures.answers import likeliest, token_bars
from helpers.figures.plots import CORRECT, OTHER

pytestmark = pytest.mark.unit


def test_the_likeliest_tokens_come_first(tiny) -> None:
    probabilities = torch.zeros(2, tiny.cfg.d_vocab)
    probabilities[0, 3], probabilities[0, 5], probabilities[1, 7] = 0.6, 0.4, 1.0
    (first, second), (alone, _) = likeliest(tiny, probabilities, 2)
    assert [text.strip() for text, _ in (first, second, alone)] == ["w3", "w5", "w7"]
    assert first[1] == pytest.approx(0.6) and alone[1] == 1.0


def test_a_bar_has_its_token_s_colour_and_words() -> None:
    fig, ax = plt.subplots()
    token_bars([(" Rome", 0.75), ("!", 0.1)], colors={" Rome": CORRECT}, ax=ax)
    faces = [bar.get_facecolor() for bar in ax.patches]
    assert faces == [plt.matplotlib.colors.to_rgba(color) for color in (CORRECT, OTHER)]
    assert [text.get_text() for text in ax.texts] == [" ␣Rome 75%", " ! 10%"]
    bottom, top = ax.get_ylim()
    assert bottom > top  # the likeliest on top
    plt.close(fig)
