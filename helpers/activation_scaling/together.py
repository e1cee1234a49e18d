"""Run and evaluate many interventions in one batch: each has rows of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import functional_call
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.interventions import Intervention
from helpers.activation_scaling.objective import Evaluation
from helpers.models.prefix import Runs
from helpers.models.run import last_logits
from helpers.prompts.prompts import Prompts


@contextmanager
def each_applied(
    model: TransformerBridge,
    interventions: Sequence[Intervention],
    beta: Float[Tensor, " batch"],
    *,
    at: slice = slice(None),
) -> Iterator[None]:
    """The model with each intervention on rows of its own, inside a ``with`` block.

    Args:
        interventions: of one class, at the same points. The batch is in as many equal parts.
        beta: of each row.
        at: the positions that the model is run on, as in :meth:`Intervention.applied`.
    """
    first, n = interventions[0], len(interventions)
    # All parameters stacked, so that vmap runs the edit of each intervention on its own rows.
    theta = {}
    for site in first.points.sites:
        each = [intervention.theta[site] for intervention in interventions]
        theta[f"theta.{site}"] = torch.stack(each)
    beta = beta.to(next(iter(theta.values())))

    def change(h: Tensor, site: str, layer: int) -> Tensor:
        def edit(parameters: dict[str, Tensor], h: Tensor, beta: Tensor) -> Tensor:
            return functional_call(first, parameters, (model, h, site, layer, beta))

        rows = beta.view(-1, *[1] * (h.ndim - 1))
        parts = h.unflatten(0, (n, -1)), rows.unflatten(0, (n, -1))
        return torch.vmap(edit)(theta, *parts).flatten(0, 1)

    with first.hooked(model, change, at):
        yield


def logits_together(
    model: TransformerBridge,
    interventions: Sequence[Intervention],
    runs: Runs,
    rows: Int[Tensor, "job prompt"],
) -> Float[Tensor, "job sign prompt d_vocab"]:
    """Last-token logits of each intervention's prompts at β = 1 and −1, in one batch."""
    first, n_jobs = interventions[0], len(interventions)
    signs = first.vec().new_tensor([1.0, -1.0])

    def steered(n: int, at: slice) -> AbstractContextManager:
        beta = signs.repeat_interleave(n).repeat(n_jobs)
        if n_jobs == 1:
            return first.applied(model, beta, at=at)
        return each_applied(model, interventions, beta, at=at)

    both = rows.repeat_interleave(2, dim=0)
    return runs.logits(model, steered, both).unflatten(0, (n_jobs, 2))


@torch.no_grad()
def evaluate_many(
    model: TransformerBridge,
    interventions: Sequence[Intervention],
    prompts: Prompts,
    *,
    at_once: int = 4,
) -> list[Evaluation]:
    """``objective.evaluate`` for many interventions, several in a batch.

    Args:
        interventions: as those of :func:`fit_many`, on the model's device.
        at_once: interventions in a batch; as many as were fitted together fit in memory.
    """
    if not interventions:
        return []
    base = last_logits(model, prompts.tokens)
    runs = Runs.of(model, prompts.tokens, interventions[0].first())
    rows = torch.arange(len(prompts), device=prompts.tokens.device)
    answers, measured = (prompts.correct, prompts.wrong), []
    for start in range(0, len(interventions), at_once):
        group = interventions[start : start + at_once]
        logits = logits_together(model, group, runs, rows.expand(len(group), -1))
        for intervention, (plus, minus) in zip(group, logits):
            measured.append(Evaluation.of(intervention.vec(), plus, minus, base, *answers))
    return measured
