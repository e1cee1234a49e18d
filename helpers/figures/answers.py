"""The likeliest next tokens: as text, in words, and as bars beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.figures.plots import OTHER, show_token
from helpers.models.checks import checked
from helpers.models.tokens import token_strings

Likely = Sequence[tuple[str, float]]  # tokens with their probabilities, the likeliest first


@checked
def likeliest(
    model: TransformerBridge, probabilities: Float[Tensor, "row d_vocab"], k: int
) -> list[list[tuple[str, float]]]:
    """The k likeliest tokens of each row with their probabilities."""
    found, rows = probabilities.topk(k), []
    for tokens, values in zip(found.indices, found.values.tolist()):
        rows.append(list(zip(token_strings(model, tokens), values)))
    return rows


def in_words(tokens: Likely) -> list[str]:
    """Each token with its probability.

    Example:
        >>> in_words([(" Rome", 0.753), ("!", 0.1)])
        ['␣Rome 75%', '! 10%']
    """
    return [f"{show_token(text)} {value:.0%}" for text, value in tokens]


def token_bars(tokens: Likely, *, colors: Mapping[str, str], ax: Axes, limit: float = 1.0) -> Axes:
    """A bar for each token, with its text and probability, the likeliest on top.

    Args:
        colors: of some tokens; all others are grey.
        limit: right end of the axis.
    """
    for height, ((text, value), words) in enumerate(zip(tokens, in_words(tokens))):
        ax.barh(height, value, color=colors.get(text, OTHER))
        ax.text(value, height, f" {words}", va="center", fontsize="small")
    ax.set(yticks=[], xlim=(0, limit))
    ax.invert_yaxis()
    return ax
