"""Maps of heads: which ones lead, their values, their names. A head is a pair (layer, number)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from helpers.models.checks import whole

Head = tuple[int, int]


def leading(values: Float[Tensor, "layer head"], k: int) -> list[Head]:
    """The k heads with the largest values, largest first; all where there are fewer."""
    best = values.flatten().topk(min(whole("k", k), values.numel())).indices
    return [divmod(i, values.shape[-1]) for i in best.tolist()]


def of_heads(
    values: Float[Tensor, "*n layer head"], heads: Sequence[Head]
) -> Float[Tensor, "*n chosen"]:
    """The values of some heads."""
    layers, numbers = np.transpose(heads)
    return values[..., layers, numbers]


def name_of(head: Head) -> str:
    """A head's name.

    Example:
        >>> name_of((26, 2))
        '26.2'
    """
    return "{}.{}".format(*head)


def names_of(heads: Sequence[Head]) -> str:
    """Their names in a row."""
    return ", ".join(map(name_of, heads))


def listed(heads: Sequence[Head], values: Float[Tensor, "layer head"], form: str) -> str:
    """Their names with their values, each in a form such as ``"{} {:.2f}"``."""
    return ", ".join(map(form.format, map(name_of, heads), of_heads(values, heads)))
