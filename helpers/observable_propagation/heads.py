"""Maps of heads: which ones lead, their values, their names. A head is a pair (layer, number)."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Shaped
from torch import Tensor

from helpers.models.checks import checked, whole

Head = tuple[int, int]


@checked
def leading(values: Float[Tensor, "layer head"], k: int) -> list[Head]:
    """The k heads with the largest values, largest first; all where there are fewer."""
    best = values.flatten().topk(min(whole("k", k), values.numel())).indices
    return [divmod(i, values.shape[-1]) for i in best.tolist()]


@checked
def of_heads(
    values: Shaped[Tensor, "*n layer head"], heads: Sequence[Head]
) -> Shaped[Tensor, "*n chosen"]:
    """The values of some heads.

    Raises:
        TypeError, ValueError: a head that is not there.
    """
    n_layers, n_heads = values.shape[-2:]
    layers = [whole("layer", layer, 0, n_layers) for layer, _ in heads]
    return values[..., layers, [whole("head", head, 0, n_heads) for _, head in heads]]


@checked
def name_of(head: Head) -> str:
    """A head's name.

    Example:
        >>> name_of((26, 2))
        '26.2'
    """
    return "{}.{}".format(*head)


@checked
def names_of(heads: Sequence[Head]) -> str:
    """Their names in a row."""
    return ", ".join(map(name_of, heads))


@checked
def listed(heads: Sequence[Head], values: Shaped[Tensor, "layer head"], form: str) -> str:
    """Their names with their values, each in a form such as ``"{} {:.2f}"``."""
    return ", ".join(map(form.format, map(name_of, heads), of_heads(values, heads)))
