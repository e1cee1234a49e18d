"""Run and evaluate many interventions in one batch: each has rows of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import groupby
from math import ceil

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import functional_call
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.interventions import Intervention
from helpers.activation_scaling.objective import Evaluation, base_logits
from helpers.models.checks import checked, whole
from helpers.models.prefix import Runs
from helpers.prompts.prompts import Prompts, join

Case = tuple[Intervention, Prompts]


@contextmanager
@checked
def each_applied(
    model: TransformerBridge,
    interventions: Sequence[Intervention],
    beta: Float[Tensor, " batch"],
    *,
    at: slice = slice(None),
) -> Iterator[None]:
    """The model with each intervention on rows of its own, inside a ``with`` block.

    Args:
        interventions: the batch is in as many equal parts. Neighbours of one class with the same
            points are edited at once.
        beta: of each row.
        at: the positions that the model is run on, as in :meth:`Intervention.applied`.
    """
    if not interventions or len(beta) % len(interventions):
        raise ValueError(f"beta has {len(beta)} values for {len(interventions)} interventions.")
    n, start = len(beta) // len(interventions), 0
    with ExitStack() as stack:
        for _, same in groupby(interventions, lambda one: (type(one), one.points)):
            group = list(same)
            rows = slice(start, start + n * len(group))
            stack.enter_context(_applied(model, group, beta[rows], rows, at))
            start = rows.stop
        yield


def _applied(
    model: TransformerBridge,
    interventions: Sequence[Intervention],
    beta: Float[Tensor, " row"],
    rows: slice,
    at: slice,
) -> AbstractContextManager:
    """Interventions of one class with the same points on some rows of the batch."""
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

        mine, factors = h[rows], beta.view(-1, *[1] * (h.ndim - 1))
        parts = mine.unflatten(0, (n, -1)), factors.unflatten(0, (n, -1))
        edited = torch.vmap(edit)(theta, *parts).flatten(0, 1)
        if len(edited) == len(h):
            return edited
        return torch.cat([h[: rows.start], edited, h[rows.stop :]])

    return first.hooked(model, change, at)


@checked
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


@checked
def rows_of(sets: Sequence[Prompts]) -> tuple[Prompts, Int[Tensor, "set prompt"]]:
    """Several sets of equally many prompts as one, and each set's rows of it, on the CPU."""
    if not sets:
        raise ValueError("sets of prompts are needed, and there is none.")
    distinct = {id(prompts): prompts for prompts in sets}
    if len({prompts.tokens.shape for prompts in sets}) > 1:
        raise ValueError("cases in one batch need equally many prompts, of equal lengths.")
    n, first = len(sets[0]), {key: number * len(sets[0]) for number, key in enumerate(distinct)}
    starts = torch.tensor([first[id(prompts)] for prompts in sets])
    return join(list(distinct.values())), starts[:, None] + torch.arange(n)


@checked
@torch.no_grad()
def steer_each(
    model: TransformerBridge, cases: Sequence[Case], *, batch_size: int = 128
) -> Iterator[Float[Tensor, "sign prompt d_vocab"]]:
    """For each case the logits of its prompts at β = 1 and −1, several cases in a batch.

    Args:
        cases: interventions on the model's device, each with its prompts: equally many, and of
            equal lengths.
        batch_size: rows of a batch; each prompt takes two.
    """
    if not cases:
        return
    prompts, rows = rows_of([prompts for _, prompts in cases])
    rows, size = rows.to(prompts.tokens.device), whole("batch_size", batch_size)
    at_once = max(1, size // (2 * rows.shape[1]))
    at_once = ceil(len(cases) / ceil(len(cases) / at_once))  # batches of about equal size
    runs = Runs.of(model, prompts.tokens, min(one.first() for one, _ in cases))
    for start in range(0, len(cases), at_once):
        group = [intervention for intervention, _ in cases[start : start + at_once]]
        yield from logits_together(model, group, runs, rows[start : start + at_once])


@torch.no_grad()
@checked
def evaluate_many(
    model: TransformerBridge, cases: Sequence[Case], *, batch_size: int = 128
) -> list[Evaluation]:
    """``objective.evaluate`` of the cases of :func:`steer_each`."""
    if not cases:
        return []
    prompts, rows = rows_of([prompts for _, prompts in cases])
    base, measured = base_logits(model, prompts.tokens, batch_size), []
    steered = steer_each(model, cases, batch_size=batch_size)
    for (intervention, own), row, both in zip(cases, rows, steered):
        answers = own.correct, own.wrong
        measured.append(Evaluation.of(intervention.vec(), *both, base[row], *answers))
    return measured
