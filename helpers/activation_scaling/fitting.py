"""Fit an intervention by gradient ascent on Eq. 9 of the activation-scaling paper. The model's weights stay as they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.interventions import Intervention
from helpers.activation_scaling.objective import Objective
from helpers.models.prefix import Runs
from helpers.models.run import last_logits
from helpers.prompts.prompts import Prompts
from helpers.settings import show_progress


@dataclass(frozen=True)
class Fit:
    """A fitted intervention, and how the fit went.

    Attributes:
        intervention: with its learned θ.
        objective: what was maximised.
        history: one entry a step: epoch, E_m, F, M_1 and psi before the step.
        seconds: wall-clock time of the fit.
    """

    intervention: Intervention
    objective: Objective
    history: list[dict[str, float]]
    seconds: float


def fit(
    model: TransformerBridge,
    intervention: Intervention,
    prompts: Prompts,
    objective: Objective,
    *,
    learning_rate: float,
    epochs: int = 25,
    batch_size: int | None = None,
    seed: int = 0,
    initial_std: float = 1e-5,
    on_epoch: Callable[[int], None] | None = None,
) -> Fit:
    """Learn θ with Adam, starting from N(0, initial_std²) (section 3.3 and appendix A.1, activation scaling).

    Both signs of β go through the model in one batch; the base distribution is computed once; of the logits only the
    last position's are; positions before the first one that is intervened on are run once (``helpers.models.prefix``).

    Args:
        model: frozen; see ``helpers.models.load.load_model``.
        intervention: its θ is drawn afresh, then learned in place.
        prompts: training prompts, of the length that the intervention is tied to.
        objective: Ψ of Eq. 9.
        learning_rate: of Adam. The paper takes 1e-3 for ActivScalar and 1e-4 for SteerVec.
        epochs: passes over the prompts.
        batch_size: prompts a step; None takes all of them.
        seed: of the initial θ and the order of prompts.
        initial_std: standard deviation of the initial θ.
        on_epoch: called with the number of each epoch that is done; what it raises ends the fit, with θ as it is then.

    Raises:
        ValueError: a learning rate, number of epochs or batch size that is not positive; an intervention made for
            another model or prompt length.
        FloatingPointError: the objective or its gradient is not finite; θ is left at its last finite value.
    """
    check_options(learning_rate=learning_rate, epochs=epochs, batch_size=batch_size or len(prompts))
    intervention.check_tokens(prompts.tokens)
    start = time.perf_counter()
    intervention.to(prompts.tokens.device)
    intervention.reset(seed, initial_std)
    size = min(batch_size or len(prompts), len(prompts))
    with torch.no_grad():
        base = torch.cat([last_logits(model, chunk) for chunk in prompts.tokens.split(size)])
    runs = Runs.of(model, prompts.tokens, intervention.first())
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(intervention.parameters(), lr=learning_rate)
    history = []
    for epoch in tqdm(
        range(epochs),
        desc=type(intervention).__name__,
        unit="epoch",
        leave=False,
        disable=not show_progress(),
    ):
        for rows in torch.randperm(len(prompts), generator=order).split(size):
            terms = step(
                model, intervention, prompts, base, runs, rows.to(base.device), objective, optimizer
            )
            history.append({"epoch": epoch, **{name: term.item() for name, term in terms.items()}})
        if on_epoch is not None:
            on_epoch(epoch)
    return Fit(intervention, objective, history, time.perf_counter() - start)


def step(
    model: TransformerBridge,
    intervention: Intervention,
    prompts: Prompts,
    base: Tensor,
    runs: Runs,
    rows: Int[Tensor, " row"],
    objective: Objective,
    optimizer: torch.optim.Optimizer,
) -> dict[str, Tensor]:
    """One step of gradient ascent on Ψ over some of the prompts; returns the terms of Ψ before the step."""
    signs = base.new_tensor([1.0, -1.0])

    def steered(n: int, at: slice) -> AbstractContextManager:
        return intervention.applied(model, signs.repeat_interleave(n), at=at)

    plus, minus = runs.logits(model, steered, rows.expand(len(signs), -1))
    terms = objective.terms(
        intervention.vec(), plus, minus, base[rows], prompts.correct[rows], prompts.wrong[rows]
    )
    optimizer.zero_grad()
    (-terms["psi"]).backward()
    if not all_finite(intervention, terms["psi"]):
        raise not_finite({name: term.item() for name, term in terms.items()})
    optimizer.step()
    return terms


def check_options(**options: float) -> None:
    """Raise ValueError, with its name, for an option that is not positive."""
    for name, value in options.items():
        if not value > 0:
            raise ValueError(f"{name} = {value} must be positive.")


def all_finite(intervention: Intervention, psi: Float[Tensor, ""]) -> Bool[Tensor, ""]:
    """Whether the objective and its gradient are numbers."""
    gradients = [theta.grad for theta in intervention.parameters() if theta.grad is not None]
    return torch.stack(
        [psi.isfinite(), *(gradient.isfinite().all() for gradient in gradients)]
    ).all()


def not_finite(terms: dict[str, float]) -> FloatingPointError:
    """The error of a step whose objective or gradient is no number."""
    return FloatingPointError(
        "the objective or its gradient is no longer finite: "
        + ", ".join(f"{name} = {term:.4g}" for name, term in terms.items())
        + ". Lower the learning rate, the margin or the initial standard deviation."
    )
