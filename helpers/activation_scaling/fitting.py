"""Fit interventions by gradient ascent on Eq. 9 of the activation-scaling paper.

Many fits may share a batch: each has its own parameters, objective, learning rate and seed, and no
row of the batch sees another, so the results are those of single fits. Model weights stay fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import ceil

import torch
from transformer_lens.model_bridge import TransformerBridge

from helpers.activation_scaling.ascent import Fit, FitJob, Result, fit_batch
from helpers.activation_scaling.interventions import Intervention
from helpers.activation_scaling.objective import Objective
from helpers.models.checks import checked, whole
from helpers.models.hooks import alone
from helpers.models.tokens import PAD
from helpers.prompts.prompts import Prompts

# Positions in a batch on a CPU: enough that reading the weights, once a batch, costs little beside
# the arithmetic. A step keeps about 1.5 MB a position for the embedded model.
CPU_POSITIONS = 1024
# Share of the free GPU memory to fill: fragmentation takes some.
SPARE = 0.8


@dataclass(frozen=True)
class Fits:
    """The results of :func:`fit_many`.

    Attributes:
        results: a fit for each job, in order; for one that failed its error, and its θ is at the
            last finite value.
        at_once: jobs in a batch, after any reductions for lack of memory.
        peak: maximum GPU memory in use, in bytes, weights included; None on other devices.
    """

    results: list[Result]
    at_once: int
    peak: int | None


@checked
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
    """Learn θ with Adam, starting from N(0, initial_std²) (section 3.3, appendix A.1).

    Args:
        model: frozen; see ``helpers.models.load.load_model``.
        intervention: its θ is drawn anew, then learned in place.
        prompts: training prompts, of the length that the intervention is tied to.
        objective: Ψ of Eq. 9.
        learning_rate: the paper takes 1e-3 for ActivScalar and 1e-4 for SteerVec.
        epochs: passes over the prompts.
        batch_size: prompts a step, in an order drawn for each epoch; None takes all of them.
        seed: of the initial θ and the order of prompts.
        initial_std: standard deviation of the initial θ.
        on_epoch: called after each epoch with its number. An error that it raises ends the fit.

    Raises:
        TypeError, ValueError: an option that is no number or out of range; no prompts; an
            intervention made for another model or prompt length.
        FloatingPointError: the objective or its gradient is not finite; θ is at its last finite
            value.
    """
    job = FitJob(intervention, objective, prompts, learning_rate, seed, initial_std)
    how = {"epochs": epochs, "batch_size": batch_size, "on_epoch": on_epoch}
    (result,) = fit_many(model, [job], at_once=1, **how).results
    if isinstance(result, FloatingPointError):
        raise result
    return result


@checked
def fit_many(
    model: TransformerBridge,
    jobs: Sequence[FitJob],
    *,
    epochs: int = 25,
    batch_size: int | None = None,
    at_once: int | None = None,
    on_epoch: Callable[[int], None] | None = None,
) -> Fits:
    """:func:`fit` for many jobs, several in a batch.

    Args:
        model: frozen.
        jobs: each with an intervention of its own. Those with equally many prompts of equal
            lengths share batches; neighbours of one class and at the same points are faster.
        epochs, batch_size, on_epoch: as for :func:`fit`, of each job.
        at_once: jobs in a batch; None takes the largest that fits in memory. Halved whenever
            memory runs out.

    Raises:
        ValueError: no jobs, jobs that share an intervention, or options that :func:`fit` refuses.
        RuntimeError: out of memory with a single job.
    """
    _check(model, jobs, epochs, batch_size, at_once)
    device = jobs[0].prompts.tokens.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    by_shape: dict[torch.Size, list[int]] = {}
    for number, job in enumerate(jobs):
        by_shape.setdefault(job.prompts.tokens.shape, []).append(number)
    results: dict[int, Result] = {}
    sizes = []
    for numbers in by_shape.values():
        alike = [jobs[number] for number in numbers]
        size = at_once or largest_batch(model, alike[0])
        size = ceil(len(alike) / ceil(len(alike) / size))  # batches of about equal size
        found, size = _in_batches(model, alike, size, epochs, batch_size, on_epoch)
        results |= zip(numbers, found)
        sizes.append(size)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Fits([results[number] for number in range(len(jobs))], max(sizes), peak)


def _in_batches(
    model: TransformerBridge, jobs: Sequence[FitJob], size: int, *how
) -> tuple[list[Result], int]:
    """Results of the jobs, and the jobs in a batch after any reductions for lack of memory."""
    results: list[Result] = []
    while len(results) < len(jobs):
        group = jobs[len(results) : len(results) + size]
        try:
            with alone(model):
                results += fit_batch(model, group, *how)
            continue
        except RuntimeError as error:
            if not out_of_memory(error) or len(group) == 1:
                raise
            size = len(group) // 2
        if torch.cuda.is_available():  # after the handler, where the error holds the step's tensors
            torch.cuda.empty_cache()
    return results, size


def largest_batch(model: TransformerBridge, job: FitJob) -> int:
    """How many jobs like this one fit in memory; on a GPU found by running one step of it."""
    device = job.prompts.tokens.device
    if device.type != "cuda":
        return max(1, CPU_POSITIONS // (2 * int((job.prompts.tokens != PAD).sum())))
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    fit_batch(model, [deepcopy(job)], epochs=1)
    one = torch.cuda.max_memory_allocated(device) - before
    torch.cuda.empty_cache()
    return max(1, int(SPARE * torch.cuda.mem_get_info(device)[0] / one))


def out_of_memory(error: RuntimeError) -> bool:
    """Whether memory ran out; PyTorch has a class for that on CUDA, and only a message on a CPU."""
    message = str(error).lower()
    return (
        isinstance(error, torch.cuda.OutOfMemoryError)
        or "out of memory" in message
        or "can't allocate memory" in message
    )


def _check(
    model: TransformerBridge,
    jobs: Sequence[FitJob],
    epochs: int,
    batch_size: int | None,
    at_once: int | None,
) -> None:
    if not jobs:
        raise ValueError("there are no jobs to fit.")
    if len({id(job.intervention) for job in jobs}) < len(jobs):
        raise ValueError("two jobs share an intervention: give each job its own.")
    whole("epochs", epochs)
    for name, size in (("batch_size", batch_size), ("at_once", at_once)):
        if size is not None:
            whole(name, size)
    for job in jobs:
        if job.learning_rate <= 0 or job.initial_std < 0:
            name = "initial_std" if job.learning_rate > 0 else "learning_rate"
            raise ValueError(f"{name} = {getattr(job, name)} must be positive.")
        if not len(job.prompts):
            raise ValueError("there are no prompts to fit to.")
        job.intervention.points.check_model(model)
        job.intervention.check_tokens(job.prompts.tokens)
