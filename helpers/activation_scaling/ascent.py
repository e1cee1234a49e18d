"""Gradient ascent on Eq. 9 for one batch of jobs: one Adam, and one forward pass a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.interventions import Intervention
from helpers.activation_scaling.objective import (
    Objective,
    base_logits,
    minimality,
    weighted_terms,
)
from helpers.activation_scaling.together import logits_together, rows_of
from helpers.models.checks import checked
from helpers.models.prefix import Runs
from helpers.prompts.prompts import Prompts
from helpers.settings import show_progress


@dataclass(frozen=True)
class Fit:
    """A fitted intervention.

    Attributes:
        intervention: with its learned θ.
        objective: what was maximised.
        history: epoch, E_m, F, M_1 and psi before each step.
    """

    intervention: Intervention
    objective: Objective
    history: list[dict[str, float]]


@checked
@dataclass(frozen=True)
class FitJob:
    """The arguments of one :func:`fit` in a batch of several."""

    intervention: Intervention
    objective: Objective
    prompts: Prompts
    learning_rate: float
    seed: int = 0
    initial_std: float = 1e-5


Result = Fit | FloatingPointError


def fit_batch(
    model: TransformerBridge,
    jobs: Sequence[FitJob],
    epochs: int,
    batch_size: int | None = None,
    on_epoch: Callable[[int], None] | None = None,
) -> list[Result]:
    """Fit jobs in one batch; ``helpers.activation_scaling.fitting.fit_many`` checks them first.

    Returns:
        A fit for each job, or the error of one whose objective or gradient is not finite.
    """
    # Parameters, and the prompts of all jobs as one set; `own` are each job's rows of it.
    prompts, own = rows_of([job.prompts for job in jobs])
    device, n = prompts.tokens.device, own.shape[1]
    size = min(batch_size or n, n)
    interventions = [job.intervention for job in jobs]
    for job in jobs:
        job.intervention.to(device)
        job.intervention.reset(job.seed, job.initial_std)
    optimizer = _adam(jobs)
    orders = [torch.Generator().manual_seed(job.seed) for job in jobs]
    # What no step changes: the base distribution, and positions in front of the intervention.
    base = base_logits(model, prompts.tokens)
    runs = Runs.of(model, prompts.tokens, min(one.first() for one in interventions))
    histories: list[list[dict[str, float]]] = [[] for _ in jobs]
    failed: dict[int, FloatingPointError] = {}
    bar = {"desc": type(interventions[0]).__name__, "unit": "epoch", "leave": False}
    for epoch in tqdm(range(epochs), disable=not show_progress(), **bar):
        order = torch.stack([torch.randperm(n, generator=order) for order in orders])
        for columns in order.split(size, dim=1):
            rows = own.gather(1, columns).to(device)
            # Both signs of β in one batch, then one gradient step.
            optimizer.zero_grad()
            with torch.enable_grad():
                plus, minus = logits_together(model, interventions, runs, rows).unbind(1)
                terms = _terms(jobs, plus, minus, base, prompts, rows)
                (-terms["psi"].sum()).backward()
            # All numbers are read at once, since a GPU waits for each reading.
            values = torch.stack([*terms.values(), _finite(jobs, terms["psi"])], -1).tolist()
            for index, (job, (*numbers, finite)) in enumerate(zip(jobs, values)):
                found = dict(zip(terms, numbers))
                if not finite and index not in failed:
                    failed[index] = _not_finite(found)
                if index not in failed:
                    histories[index].append({"epoch": epoch, **found})
                    continue
                for theta in job.intervention.parameters():
                    theta.grad = None  # Adam then leaves it where it is
            optimizer.step()
        if len(failed) == len(jobs):
            break
        if on_epoch is not None:
            on_epoch(epoch)
    results: list[Result] = []
    for index, (job, history) in enumerate(zip(jobs, histories)):
        fitted = Fit(job.intervention, job.objective, history)
        results.append(failed.get(index, fitted))
    return results


def _adam(jobs: Sequence[FitJob]) -> torch.optim.Adam:
    """One Adam for all jobs, which updates all parameters of one learning rate at once."""
    groups: dict[float, list[Tensor]] = {}
    for job in jobs:
        groups.setdefault(job.learning_rate, []).extend(job.intervention.parameters())
    return torch.optim.Adam({"params": groups[rate], "lr": rate} for rate in groups)


def _terms(
    jobs: Sequence[FitJob],
    plus: Tensor,
    minus: Tensor,
    base: Float[Tensor, "row d_vocab"],
    prompts: Prompts,
    rows: Int[Tensor, "job prompt"],
) -> dict[str, Float[Tensor, " job"]]:
    """The terms of Ψ, for all jobs at once: a GPU waits longer for many small operations."""
    m_1 = torch.stack([minimality(job.intervention.vec(), 1) for job in jobs])
    objectives = [job.objective for job in jobs]
    weights = [[one.margin, one.lambda_f, one.lambda_m] for one in objectives]
    margin, lambda_f, lambda_m = m_1.new_tensor(weights).T
    same = len({(id(job.prompts), job.seed) for job in jobs}) == 1  # the same prompts in each step
    rows = rows[:1] if same else rows
    answers = prompts.correct[rows], prompts.wrong[rows]
    weights = margin[:, None], lambda_f, lambda_m
    return weighted_terms(*weights, m_1, plus, minus, base[rows], *answers)


def _finite(jobs: Sequence[FitJob], psi: Float[Tensor, " job"]) -> Float[Tensor, " job"]:
    """1 for each job whose objective and gradient are finite, else 0."""
    finite = []
    for job in jobs:
        parts = [theta.grad.flatten() for theta in job.intervention.parameters()]
        finite.append(torch.cat(parts).isfinite().all())
    return (psi.isfinite() & torch.stack(finite)).to(psi)


def _not_finite(terms: dict[str, float]) -> FloatingPointError:
    values = ", ".join(f"{name} = {term:.4g}" for name, term in terms.items())
    return FloatingPointError(
        f"the objective or its gradient is no longer finite: {values}. "
        "Lower the learning rate, the margin or the initial standard deviation."
    )
