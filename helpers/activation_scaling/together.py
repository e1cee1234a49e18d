"""Run and evaluate many interventions in one batch: each has rows of its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.interventions import Intervention, each_applied
from helpers.activation_scaling.objective import Evaluation
from helpers.models.prefix import Runs
from helpers.models.run import last_logits
from helpers.prompts.prompts import Prompts


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
